"""An order service and the payment service it calls, traced with tracekit; examples/README.md says how to run them."""
