"""The only layer that knows HTTP, WebSockets, JSON and marshmallow.

A resource is one module: its schemas, its handlers, its `routes`. Handlers load, call, answer.
"""
