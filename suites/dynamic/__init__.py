"""Networks whose cost depends on the input, and networks that contain many networks."""
