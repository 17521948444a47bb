"""MQTT 5, by paho-mqtt: one trace through topics, in user properties, with redelivery and batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from brokers import DEADLINE_S, Exchange, assert_failed_once, assert_joined, assert_linked

from tracekit.messaging import producing

if TYPE_CHECKING:
    from collections.abc import Iterator

mqtt = pytest.importorskip("paho.mqtt.client")
packets = pytest.importorskip("paho.mqtt.packettypes")
properties = pytest.importorskip("paho.mqtt.properties")

pytestmark = pytest.mark.services("mqtt")

# Arguments: the topic, and how many deliveries to take. What fails is not acknowledged: the broker delivers it again
# once the client has come back to its session.
SUBSCRIBER: Final = f"""
import queue

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

topic, count = sys.argv[1], int(sys.argv[2])
arrived = queue.Queue()

def connected():
    session = Properties(PacketTypes.CONNECT)
    session.SessionExpiryInterval = 60
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, client_id=topic, protocol=mqtt.MQTTv5, manual_ack=True
    )
    subscribed = queue.Queue()
    client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
    client.on_subscribe = lambda *_: subscribed.put(None)
    client.on_message = lambda client, _, message: arrived.put(message)
    client.connect("127.0.0.1", clean_start=False, properties=session)
    client.loop_start()
    subscribed.get(timeout={DEADLINE_S})
    return client

def disconnect(client):
    client.disconnect()
    client.loop_stop()

client = connected()
ready()
"""

EACH: Final = f"""
while count:
    message = arrived.get(timeout={DEADLINE_S})
    count -= 1
    try:
        with consuming(message.topic, message, system="mqtt"):
            handle(message.payload)
    except ValueError:
        print("again" if message.dup else "first", flush=True)
        if not message.dup:
            disconnect(client)
            client = connected()
            continue
    client.ack(message.mid, message.qos)
disconnect(client)
"""

BATCH: Final = f"""
batch = [arrived.get(timeout={DEADLINE_S}) for _ in range(count)]
with consuming_batch(topic, batch, system="mqtt"):
    for message in batch:
        handle(message.payload)
for message in batch:
    client.ack(message.mid, message.qos)
disconnect(client)
"""


@pytest.fixture
def client(exchange: Exchange) -> Iterator[Any]:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.connect("127.0.0.1")
    client.loop_start()
    yield client
    client.disconnect()
    client.loop_stop()
    # The subscriber's session ends with a clean start that has no expiry.
    forgetting = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=exchange.name, protocol=mqtt.MQTTv5)
    forgetting.on_connect = lambda client, *_: client.disconnect()
    forgetting.connect("127.0.0.1", clean_start=True)
    forgetting.loop_forever()


def publish(client: Any, topic: str, body: bytes) -> None:
    empty = properties.Properties(packets.PacketTypes.PUBLISH)
    with producing(topic, empty, system="mqtt", operation="publish") as sent:
        client.publish(topic, body, qos=1, properties=sent).wait_for_publish(DEADLINE_S)


def test_redelivery_joins_the_trace_of_the_publisher(exchange: Exchange, client: Any) -> None:
    exchange.start_consumer(SUBSCRIBER + EACH, 2, waits=True)
    publish(client, exchange.name, b"flaky")
    assert exchange.finish() == ["handles flaky", "first", "handles flaky"]
    (published,) = exchange.spans(f"publish {exchange.name}")
    first, second = exchange.spans(f"process {exchange.name}")
    assert_joined(published, first)
    assert_joined(published, second)
    assert_failed_once(first, exchange.spans("orders.handle")[0])
    assert second.status == "ok"


def test_poison_message_fails_each_time(exchange: Exchange, client: Any) -> None:
    exchange.start_consumer(SUBSCRIBER + EACH, 2, waits=True)
    publish(client, exchange.name, b"poison")
    assert exchange.finish() == ["handles poison", "first", "handles poison", "again"]
    (published,) = exchange.spans(f"publish {exchange.name}")
    processed = exchange.spans(f"process {exchange.name}")
    for subscriber, handler in zip(processed, exchange.spans("orders.handle"), strict=True):
        assert_joined(published, subscriber)
        assert_failed_once(subscriber, handler)


def test_batch_is_linked_to_each_publisher(exchange: Exchange, client: Any) -> None:
    exchange.start_consumer(SUBSCRIBER + BATCH, 3, waits=True)
    for body in (b"1", b"2", b"3"):
        publish(client, exchange.name, body)
    assert exchange.finish() == ["handles 1", "handles 2", "handles 3"]
    (batch,) = exchange.spans(f"process {exchange.name}")
    assert_linked(batch, exchange.spans(f"publish {exchange.name}"))
