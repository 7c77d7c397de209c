"""What the commands of ``python -m analysis`` do."""
