"""--offload: what is kept in CPU memory comes to the GPU slice by slice, and goes back, while the
GPU calculates. Nothing of it was measured on one.

                copy stream      slice 2 in | slice 0 out | slice 3 in | slice 1 out
                GPU calculates   slice 1                  | slice 2
"""

import torch


class Lane:
    """A slice's way to the GPU and back: pinned memory on this side, buffers on the other."""

    def __init__(self, device, stream):
        self.device, self.stream = device, stream
        self.pinned, self.buffers = {}, {}  # by place and dtype: as long as the longest so far
        self.kept, self.on_gpu, self.results = None, [], None
        self.arrived, self.sent = None, None  # events: it is there, it is back

    def room(self, buffers: dict, i: int, like, **where):
        """The first len(like) numbers of buffer i."""
        key = i, like.dtype
        if key not in buffers or len(buffers[key]) < len(like):
            buffers[key] = torch.empty(len(like), dtype=like.dtype, **where)
        return buffers[key][: len(like)]

    def load(self, kept: list) -> None:
        """Begin to copy the tensors (n,) that are kept in CPU memory to the GPU."""
        self.kept, self.on_gpu = kept, []
        for i, tensor in enumerate(kept):
            self.on_gpu.append(self.room(self.buffers, i, tensor, device=self.device))
            self.room(self.pinned, i, tensor, pin_memory=True).copy_(tensor)
        # a new buffer's memory may still be in use by what was calculated before
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            for i, buffer in enumerate(self.on_gpu):
                copy(buffer, self.room(self.pinned, i, kept[i], pin_memory=True))
            self.arrived = self.stream.record_event()

    def tensors(self) -> list:
        """The same tensors on the GPU; what is calculated from here on waits for them."""
        torch.cuda.current_stream(self.device).wait_event(self.arrived)
        return self.on_gpu

    def send(self, results: list) -> None:
        """Begin to copy what the tensors have become back."""
        # in the dtype of those; held until they are back, or their memory would be given away
        self.results = [new.to(old.dtype) for new, old in zip(results, self.kept)]
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            for i, result in enumerate(self.results):
                copy(self.room(self.pinned, i, result, pin_memory=True), result)
            self.sent = self.stream.record_event()

    def unload(self) -> None:
        """Wait until they are back, and put them where they are kept."""
        if self.sent is None:
            return
        self.sent.synchronize()
        for i, tensor in enumerate(self.kept):
            tensor.copy_(self.room(self.pinned, i, tensor, pin_memory=True))
        self.kept = self.sent = self.results = None


def copy(target, source) -> None:
    target.copy_(source, non_blocking=True)


class Ferry:
    """Two lanes and the stream of their copies, which last as long as the optimiser."""

    def __init__(self, device):
        stream = torch.cuda.Stream(device)
        self.lanes = Lane(device, stream), Lane(device, stream)

    def carry(self, slices: list[list], work) -> None:
        """For each slice i, a list of tensors in CPU memory: they become work(i, [on the GPU])."""
        for i in range(len(slices) + 1):
            coming, here = self.lanes[i % 2], self.lanes[(i + 1) % 2]
            coming.unload()
            if i < len(slices):
                coming.load(slices[i])
            if i > 0:
                here.send(work(i - 1, here.tensors()))
        for lane in self.lanes:
            lane.unload()
