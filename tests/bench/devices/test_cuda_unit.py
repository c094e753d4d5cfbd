"""The unit of a card: how it is found, named, described and opened, and what its errors become."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ridgeline.bench.devices import choose, cuda, cuda_probe
from ridgeline.bench.devices.choose import choose_unit, open_session
from ridgeline.bench.devices.cuda import Cuda, card_hash, device_of, facts_of
from ridgeline.bench.devices.cuda_probe import CudaCard, Probed, card_named, card_of, describe, read_answer
from ridgeline.bench.devices.cuda_session import CudaSession, activities_of, lost_reason, naming_loss
from ridgeline.bench.devices.cuda_timer import card_and_timer
from ridgeline.bench.devices.cuda_watch import NotWatched
from ridgeline.bench.devices.kernel_trace import CardActivity, busy_s, figures
from ridgeline.bench.devices.unit import UnitError, UnitLostError
from ridgeline.bench.gpu_roofs import MOST_READ_ELEMENTS, gpu_roofs
from ridgeline.bench.supervisor import Supervisor
from ridgeline.workloads.suite import Settings

H100 = CudaCard(0, "NVIDIA H100 80GB HBM3", "aaaa-1", 85e9, 50e6, 132, "sm_90", "cuda 13.0")
L4 = CudaCard(1, "NVIDIA L4", "aaaa-2", 24e9, 48e6, 58, "sm_89", "cuda 13.0")
MI300 = CudaCard(0, "AMD Instinct MI300X", "", 192e9, 4e6, 304, "gfx942", "rocm 7.0")


def test_a_card_of_the_catalogue_has_its_data_sheet_and_another_has_none() -> None:
    assert device_of(H100).rates
    assert device_of(dataclasses.replace(H100, l2_bytes=62914560)).memory[0].capacity_bytes == 62914560
    assert device_of(dataclasses.replace(H100, l2_bytes=0)).memory[0].capacity_bytes == 50e6
    assert device_of(L4).id == "nvidia-l4"
    for unknown in (
        dataclasses.replace(L4, name="NVIDIA L9"),
        dataclasses.replace(H100, name="NVIDIA H100 80GB HBM3 MIG 1g.10gb", memory_bytes=10e9, multiprocessors=16),
        dataclasses.replace(H100, multiprocessors=60),
    ):
        other = device_of(unknown)
        assert (other.rates, other.bandwidths) == ((), ())
        assert other.main_memory.capacity_bytes == unknown.memory_bytes
        assert "none can be impossible" in facts_of(unknown, other)["physical_ceilings"]
    assert device_of(dataclasses.replace(L4, name="NVIDIA L9")).id == "nvidia-l9"
    assert device_of(MI300).vendor == "AMD"


def test_a_cold_rotation_passes_through_the_last_cache() -> None:
    """An MI300X has 256 MB of Infinity Cache behind the 4 MB of L2 that its driver tells."""
    unit = Cuda(MI300, device_of(MI300))
    assert unit.device.memory[0].capacity_bytes == MI300.l2_bytes
    assert unit.last_level_cache_bytes == 256e6


def test_a_file_of_the_users_may_leave_out_the_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'id = "acme-one"\nname = "One"\nvendor = "Acme"\nkind = "gpu"\n'
        'memory = [{ name = "HBM", capacity_bytes = 24e9 }]\n[match]\nname = "Acme One"\n'
    )
    monkeypatch.setenv("RIDGELINE_DEVICES", str(tmp_path))
    card = dataclasses.replace(L4, name="Acme One")
    assert [level.name for level in device_of(card).memory] == ["L2", "HBM"]
    assert Cuda(card, device_of(card)).last_level_cache_bytes == card.l2_bytes


def test_the_unit_names_itself_as_it_is_chosen() -> None:
    unit = Cuda(L4, device_of(L4), "graph", {"driver": "580"})
    assert (unit.spec, unit.timer, unit.threads) == ("cuda:1:graph", "cuda_graph", 1)
    assert card_and_timer(unit.spec.removeprefix("cuda:")) == ("1", "graph")
    assert Cuda(H100, device_of(H100)).timer == "cuda_events"
    assert unit.last_level_cache_bytes == 48e6
    assert unit.facts()["driver"] == "580"
    for wrong in ("x", "0:clock", "-1", "0:graph:1"):
        with pytest.raises(UnitError, match="write cuda, cuda:N or cuda:N:graph"):
            card_and_timer(wrong)


class Recorder:
    """A card that captures: a graph is the list of launches that its work asked for."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses = refuses
        self.asked: list[int] = []
        self.replayed: list[tuple[int, ...]] = []
        self.waited = 0
        self.cuda = SimpleNamespace(synchronize=self.wait)

    def wait(self) -> None:
        self.waited += 1

    def launch(self, count: int) -> None:
        self.asked.append(count)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        if self.refuses:
            raise RuntimeError("operation not permitted when stream is capturing")
        before = len(self.asked)
        work()
        graph = tuple(self.asked[before:])
        del self.asked[before:]
        return lambda: self.replayed.append(graph)


def test_an_unattended_load_is_replayed_and_goes_through_the_whole_rotation() -> None:
    card = Recorder()
    session = CudaSession(card, card, None, NotWatched("a test"))  # type: ignore[arg-type]
    run = session.unattended(card.launch, 2e-4, rotation=12)
    assert card.asked == [], "capturing launches nothing"
    run(17)
    assert card.replayed == [(5,), (5,), (5,)], "three graphs of 5 launches hold a rotation of 12"
    assert card.asked == [2]


def test_what_cannot_be_captured_is_launched() -> None:
    card = Recorder(refuses=True)
    session = CudaSession(card, card, None, NotWatched("a test"))  # type: ignore[arg-type]
    run = session.unattended(card.launch, 2e-4, rotation=1)
    run(17)
    assert card.asked == [17]
    assert card.waited == 1, "an error of the capture is not left for the next launch"


def test_float32_is_float32_whatever_the_case_before_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    session = CudaSession(torch, None, SimpleNamespace(forget=lambda: None), NotWatched("a test"))  # type: ignore[arg-type]
    torch.set_float32_matmul_precision("high")
    session.use(1)
    assert torch.get_float32_matmul_precision() == "highest"


def test_each_rank_has_a_card_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "something_there", lambda: True)
    second = dataclasses.replace(H100, index=2, uuid="aaaa-3")
    monkeypatch.setattr(cuda, "probe", lambda: Probed((H100, L4, second)))
    unit = choose_unit("cuda:2:graph")
    assert [m.spec for m in unit.members(2)] == ["cuda:2:graph", "cuda:0:graph"]
    assert [m.unit for m in unit.members(2)] == [card_hash(second), card_hash(H100)]
    with pytest.raises(UnitError, match="3 ranks need a card each: torch can use 2 NVIDIA H100 80GB HBM3"):
        unit.members(3)
    assert unit.placement_of(1) == unit.placement
    both = unit.placement_of(2)
    assert (both.ranks, both.device) == (2, unit.device.id)
    assert both.unit not in (card_hash(second), card_hash(H100))
    assert both == choose_unit("cuda:0:graph").placement_of(2)  # the same two cards
    assert unit.cache_bytes_per_rank(2) == unit.last_level_cache_bytes


def test_units_are_told_apart_without_naming_them() -> None:
    assert card_hash(H100) != card_hash(L4)
    assert "aaaa" not in card_hash(H100)
    assert card_hash(MI300) == card_hash(MI300)


def test_without_a_name_the_first_card_is_taken_and_without_one_the_host(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cuda_probe, "something_there", lambda: True)
    monkeypatch.setattr(cuda, "something_there", lambda: True)
    monkeypatch.setattr(cuda, "probe", lambda: Probed((H100, L4)))
    assert choose_unit().spec == "cuda:0"
    assert choose_unit("cuda:1").spec == "cuda:1"
    with pytest.raises(UnitError, match=r"no card cuda:7: there is cuda:0 \(NVIDIA H100"):
        choose_unit("cuda:7")
    monkeypatch.setattr(cuda, "probe", lambda: Probed((), "torch is built for the CPU only"))
    assert choose_unit().spec == "cpu"
    assert "a GPU is here, but the CPU is measured: no GPU" in capsys.readouterr().err
    monkeypatch.setattr(cuda_probe, "something_there", lambda: False)
    monkeypatch.setattr(cuda, "probe", lambda: pytest.fail("torch was asked where there is no card"))
    assert choose_unit().spec == "cpu"


def test_a_worker_opens_the_host_as_before_and_a_missing_card_is_one_line() -> None:
    assert open_session("cpu").torch_device == "cpu"
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(UnitError, match="cuda:0: "):
            open_session("cuda:0")
    assert set(choose._KINDS) >= {"cpu", "cuda"}


def test_a_card_that_a_worker_cannot_open_costs_a_case_and_says_why() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    request = {
        "unit": "cuda:0",
        "operator": "gemm",
        "problem": {"m": 8, "n": 8, "k": 8, "precision": "float32"},
        "implementation": "torch",
        "threads": 1,
        "cache": "warm",
        "cache_bytes": 1e6,
        "seed": 0,
        "settings": Settings().model_dump(),
        "with": [],
        "beside": [],
    }
    with Supervisor(60.0, 8e9) as supervisor:
        outcome = supervisor.run(request)
    assert outcome.fields["status"] == "crashed"
    assert "cuda:0: torch" in outcome.fields["reason"]
    assert "finds no card" in outcome.fields["reason"]


def test_the_probe_reads_torch_and_survives_whatever_it_prints() -> None:
    properties = SimpleNamespace(
        name="NVIDIA L4", uuid="u", total_memory=24, L2_cache_size=48, multi_processor_count=58, major=8, minor=9
    )
    torch = SimpleNamespace(
        __version__="2.13",
        version=SimpleNamespace(hip=None, cuda="13.0"),
        cuda=SimpleNamespace(
            is_available=lambda: True, device_count=lambda: 1, get_device_properties=lambda index: properties
        ),
    )
    (card,) = describe(torch).cards
    assert (card.architecture, card.runtime, card.l2_bytes) == ("sm_89", "cuda 13.0", 48.0)
    amd = card_of(
        0, SimpleNamespace(name="MI", total_memory=1, multi_processor_count=1, gcnArchName="gfx942:sramecc+"), "rocm 7"
    )
    assert (amd.architecture, amd.uuid, amd.is_amd) == ("gfx942", "", True)
    torch.version.cuda = None
    assert "built for the CPU only" in describe(torch).reason
    good = json.dumps({"cards": [], "reason": "none"})
    assert read_answer(0, f"a library's greeting\n{good}\n", "").reason == "none"
    for output in ("", "no json", "{}", '{"cards": [{}], "reason": ""}'):
        assert read_answer(-11, output, "Segmentation fault").reason.endswith("Segmentation fault")
    with pytest.raises(UnitError, match="because"):
        card_named("", Probed((), "because"))


def test_the_probe_of_this_machine_answers() -> None:
    probed = cuda_probe.probe()
    assert bool(probed.cards) != bool(probed.reason)


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("CUDA error: GPU is lost\nmore", True),
        ("x\nCUDA error: no CUDA-capable device is detected", True),
        ("CUDA error: uncorrectable ECC error encountered", True),
        ("CUDA error: CUDA-capable device(s) is/are busy or unavailable", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("CUDA out of memory. Tried to allocate 2 GiB", False),
    ],
)
def test_a_lost_card_is_told_from_a_faulty_kernel(text: str, lost: bool) -> None:
    assert bool(lost_reason(text)) == lost
    with pytest.raises(UnitLostError if lost else RuntimeError) as raised, naming_loss():
        raise RuntimeError(text)
    assert isinstance(raised.value, UnitLostError) == lost


def test_busy_time_counts_what_overlaps_once_and_kernels_are_no_copies() -> None:
    activities = [
        CardActivity("gemm", 0.0, 2.0),
        CardActivity("reduce", 1.0, 3.0),
        CardActivity("Memset (Device)", 5.0, 6.0),
        CardActivity("inner", 1.2, 1.4),
    ]
    assert busy_s(activities) == 4.0
    assert figures(activities, 2) == {"kernel_s": 2.0, "kernels_per_launch": 1.5}
    assert figures([], 3) == {}
    assert figures([CardActivity("Memcpy HtoD", 0.0, 1.0)], 1) == {}, "copies alone are no kernel"


def test_only_what_the_card_did_is_taken_from_a_profile() -> None:
    def event(name: str, kind: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, device_type=kind, time_range=SimpleNamespace(start=10.0, end=25.0))

    (only,) = activities_of([event("aten::mm", "DeviceType.CPU"), event("gemm", "DeviceType.CUDA")])
    assert (only.name, only.end_s - only.start_s) == ("gemm", pytest.approx(15e-6))


@pytest.mark.parametrize("card", [H100, L4, MI300], ids=lambda card: card.name)
def test_roofs_lie_in_the_level_they_measure_and_are_taken_by_their_kernels(card: CudaCard) -> None:
    from ridgeline.kernels.registry import get_implementation, load

    load()
    device = device_of(card)
    specs = gpu_roofs(device, card.multiprocessors, card.architecture)
    levels = set()
    for spec in specs:
        kernel = get_implementation(spec.problem.operator, spec.implementation)
        assert kernel.unsupported_reason(spec.problem, "cuda") is None
        if spec.problem.operator == "stream":
            levels.add((device.level_for(spec.problem.footprint_bytes(), "warm", 1).name, spec.problem.operation))
            assert spec.problem.elements <= MOST_READ_ELEMENTS
    assert len(levels) == 6, "read, copy and triad in two levels"
    assert len({(spec.problem, spec.implementation) for spec in specs}) == len(specs)


def test_roofs_are_of_the_precisions_that_the_card_has() -> None:
    def matrix(architecture: str) -> set[str]:
        specs = gpu_roofs(device_of(L4), 10, architecture)
        return {s.problem.precision for s in specs if s.implementation == "triton_matrix"}

    assert "float8_e4m3fn" in matrix("sm_90")
    assert "float8_e4m3fn" not in matrix("sm_80")
    assert {"tfloat32", "bfloat16"} <= matrix("sm_80")
    assert matrix("sm_75") == {"float16", "int8"}
