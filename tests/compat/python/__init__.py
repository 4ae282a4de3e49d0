"""The official Python SDK, in both of its flavours."""
