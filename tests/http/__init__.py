"""Tests of procd.http: requests, replies, WebSockets, who may call."""
