"""What every metric here must do as a torchmetrics.Metric: merge, forward, reset, pickle, and sync across workers."""

import copy
import pickle
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lightning_inf.metrics import (
    LeaveOneOutCorrelation,
    LinearDatamodelingScore,
    MislabelDetection,
    RemovalCurve,
    TopKDetection,
)


def batches():
    """For each metric: how to make it, and three chunks of arguments."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    masks = draw(10, 6) > 0
    return {
        "mislabel": (lambda: MislabelDetection(k=[1, 4]), [(draw(6), draw(6) > 0) for _ in range(3)]),
        "topk": (
            lambda: TopKDetection(k=[1, 3]),
            [(draw(4, 6), torch.randint(0, 6, (4,), generator=generator)) for _ in range(3)],
        ),
        "datamodeling": (LinearDatamodelingScore, [(draw(2, 6), masks, draw(2, 10, 2)) for _ in range(3)]),
        "leave_one_out": (LeaveOneOutCorrelation, [(draw(2, 5), draw(2, 5), torch.arange(2)) for _ in range(3)]),
        "removal": (RemovalCurve, [(torch.tensor([1, 2]), draw(3, 2), draw(3, 2)) for _ in range(3)]),
    }


NAMES = list(batches())


def updated(make, chunks):
    metric = make()
    for chunk in chunks:
        metric.update(*chunk)
    return metric


def flat(result):
    """A result with rounded numbers, as sums in another order differ in the last digit."""
    if isinstance(result, dict):
        return {key: flat(value) for key, value in result.items()}
    if isinstance(result, list):
        return [flat(value) for value in result]
    return round(result, 10) if isinstance(result, float) else result


@pytest.mark.parametrize("name", NAMES)
def test_merging_two_metrics_is_one_metric(name):
    make, chunks = batches()[name]
    one, other = updated(make, chunks[:1]), updated(make, chunks[1:])
    one.merge_state(other)
    assert flat(one.compute()) == flat(updated(make, chunks).compute())


@pytest.mark.parametrize("name", NAMES)
def test_forward_gives_the_chunk_and_keeps_the_whole(name):
    make, chunks = batches()[name]
    metric = make()
    for chunk in chunks:
        assert flat(metric(*chunk)) == flat(updated(make, [chunk]).compute())
    assert flat(metric.compute()) == flat(updated(make, chunks).compute())


@pytest.mark.parametrize("name", NAMES)
def test_reset_forgets(name):
    make, chunks = batches()[name]
    metric = updated(make, chunks[:2])
    metric.compute()
    metric.reset()
    metric.update(*chunks[2])
    assert metric.compute() == updated(make, chunks[2:]).compute()


@pytest.mark.parametrize("name", NAMES)
def test_copies_carry_their_state(name):
    make, chunks = batches()[name]
    metric = updated(make, chunks)
    expected = metric.compute()
    assert copy.deepcopy(metric).compute() == expected
    assert pickle.loads(pickle.dumps(metric)).compute() == expected


@pytest.mark.parametrize("name", NAMES)
def test_low_precision_input_is_widened_not_rounded(name):
    make, chunks = batches()[name]
    halves = [[x.bfloat16() if x.is_floating_point() else x for x in chunk] for chunk in chunks]
    widened = [[x.double() if x.is_floating_point() else x for x in chunk] for chunk in halves]
    assert flat(updated(make, halves).compute()) == flat(updated(make, widened).compute())


@pytest.mark.parametrize("name", NAMES)
def test_the_caller_may_reuse_its_buffers(name):
    make, chunks = batches()[name]
    buffers = [[x.double() if x.is_floating_point() else x.clone() for x in chunk] for chunk in chunks]
    metric = updated(make, buffers)
    for buffer in [x for chunk in buffers for x in chunk]:
        buffer.zero_()
    assert flat(metric.compute()) == flat(updated(make, chunks).compute())


def _worker(rank, world, port, names, queue):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    results = {}
    for name in names:
        make, chunks = batches()[name]
        # uneven shares, and a last worker that saw nothing
        share = [chunks[:1], chunks[1:], []][rank]
        metric = updated(make, share)
        result = metric.compute()
        # after the sync the worker must have its own share back
        metric.update(*chunks[0])
        results[name] = (flat(result), metric._update_count, len(share))
    dist.destroy_process_group()
    if rank in (0, 2):
        queue.put((rank, results))


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_three_workers_of_which_one_is_idle_give_the_whole():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # not "fork": this process may hold OpenMP threads or a CUDA context by now, which a forked child cannot use
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["torchmetrics", "lightning_inf.metrics"])
    queue = context.SimpleQueue()
    workers = [context.Process(target=_worker, args=(rank, 3, port, NAMES, queue)) for rank in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    alive = [worker for worker in workers if worker.is_alive()]
    for worker in alive:
        worker.kill()
    assert not alive
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    expected = {name: flat(updated(*batches()[name]).compute()) for name in NAMES}
    for _ in range(2):
        rank, results = queue.get()
        for name in NAMES:
            result, updates, share = results[name]
            assert result == expected[name], (rank, name)
            assert updates == share + 1
