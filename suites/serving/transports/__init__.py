"""How a request comes from its client's process and the answer goes back, one file a transport; `table` names them."""
