"""HTTP, WebSockets and JSON, as clients see them: no layer below knows aiohttp or marshmallow.

A resource is one module: its schemas, its handlers, its `routes`. Handlers load, call, answer.
"""
