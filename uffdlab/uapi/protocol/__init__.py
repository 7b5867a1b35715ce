"""The wire between host and guest: every method with its parameters and its answer, every notification, every error.

A method is a class, and a request is a value of it: ``ask(ReadPagemap(start, pages, 4096))`` returns a
:class:`~uffdlab.uapi.protocol.witnesses.PagemapEntries`.  The fields of the class are the parameters, in their order on
the wire.  Its type parameter is the type of the answer.  The annotations give types and ranges; ``Method.check`` checks
what depends on the request.  :mod:`uffdlab.machines.rpc.decoding` validates everything from a guest against this
description.

Requests go as ``[0, id, method, parameters]``, answers as ``[1, id, error, answer]``, notifications as
``[2, method, parameters]`` (MessagePack-RPC).  The agent does not import this package, which would delay every boot: a
test compares its functions with it.

:mod:`~uffdlab.uapi.protocol.agent`, :mod:`~uffdlab.uapi.protocol.target` and
:mod:`~uffdlab.uapi.protocol.witnesses` have the methods, by who is asked and who asks;
:mod:`~uffdlab.uapi.protocol.notifications` and :mod:`~uffdlab.uapi.protocol.errors` the rest of what the agent sends;
:mod:`~uffdlab.uapi.protocol.base` what all of them are made of.
"""
