"""Networks in service: from encoded bytes to an answer under a load, and networks cut in two by a link."""
