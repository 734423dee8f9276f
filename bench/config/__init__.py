"""The configuration: composed, validated, and the names that it may use; nothing here imports torch."""
