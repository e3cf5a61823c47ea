"""A communicator whose ranks are threads of one process, with the methods of mpi4py's that a training needs."""

import collections
import pickle
import queue
import threading
from concurrent.futures import ThreadPoolExecutor


class Aborted(BaseException):
    """A rank has called Abort."""


class Communicator:
    def __init__(self, shared, rank):
        self.shared, self.rank = shared, rank

    def Get_rank(self):
        return self.rank

    def Get_size(self):
        return self.shared.size

    def allgather(self, value):
        self.shared.slots[self.rank] = pickle.dumps(value)
        self.shared.barrier.wait()
        values = [pickle.loads(text) for text in self.shared.slots]
        self.shared.barrier.wait()
        return values

    def bcast(self, value, root=0):
        return self.allgather(value)[root]

    def send(self, value, dest):
        self.shared.sent[self.rank, dest].put(pickle.dumps(value))

    def recv(self, source):
        return pickle.loads(self.shared.sent[source, self.rank].get(timeout=600))

    def Abort(self, code):
        self.shared.barrier.abort()
        raise Aborted(code)


class Shared:
    def __init__(self, size):
        self.size, self.slots, self.barrier = size, [b""] * size, threading.Barrier(size, timeout=600)
        self.sent = collections.defaultdict(queue.Queue)


def together(size, function):
    """Call function(comm) on `size` ranks, and return what each of them returns, or the exception that it raises."""
    shared = Shared(size)

    def one(rank):
        try:
            return function(Communicator(shared, rank))
        except (Exception, Aborted) as reason:
            return reason

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))
