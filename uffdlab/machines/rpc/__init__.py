"""MessagePack-RPC with the agent over one byte stream."""
