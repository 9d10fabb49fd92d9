"""What strategies that see a volume as a sequence of slices cost."""

from __future__ import annotations

import time

from measuring import Row, peak_gb, row, timed

SEQUENCES = (8, 32, 128)
"""Slices, each an embedding of 256 x 32 x 32: 512 pixels a side with a stride of 16."""


def _sequences(name: str, predict, step, trained: tuple[int, ...], device: str) -> list[Row]:
    """Prediction of sequences of rising length, then training steps (whole sequences); the peak is
    that of the process so far, above what it held before."""
    import torch

    rows: list[Row] = []
    before = peak_gb("cpu")
    for kind, lengths in (("prediction", SEQUENCES), ("training step", trained)):
        for length in lengths:
            sequence = torch.randn(length, 256, 32, 32, device=device)
            began, busy = time.perf_counter(), time.process_time()
            if kind == "prediction":
                with torch.inference_mode():
                    predict(sequence)
            else:
                step(sequence)
            if device == "cuda":
                torch.cuda.synchronize()
            seconds = round(time.perf_counter() - began, 2)
            remark = f"{time.process_time() - busy:.2f} s of processor time"
            peak = peak_gb(device) if device == "cuda" else round(peak_gb(device) - before, 2)
            what = f"{name}, {length} slices, {kind}"
            rows.append({"what": what, "seconds": seconds, "peak_gb": peak, "remark": remark})
    return rows


@row
def propagation(device: str) -> list[Row]:
    """ECT's propagation along the slices, in the windows in which volumes are predicted."""
    from SAMSemiSegLib.finetuning.cross_teaching.propagation import Propagation

    module = Propagation().to(device)
    reach, window = module.reach, 8

    def predict(sequence) -> None:
        for start in range(0, len(sequence), window):
            low = max(start - reach, 0)
            module(sequence[low : start + window + reach])[start - low :][:window]

    def step(sequence) -> None:
        module(sequence).square().mean().backward()

    return _sequences("propagation", predict, step, (8, 32, 128), device)


@row
def memory_attention(device: str) -> list[Row]:
    """Memory attention as SAM 2 and MedSAM-2 have it, with random weights: 4 layers of attention
    within the slice and to the 7 slices before, whose memories have 64 channels."""
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self, key_channels: int) -> None:
            super().__init__()
            self.q, self.out = nn.Linear(256, 256), nn.Linear(256, 256)
            self.k, self.v = nn.Linear(key_channels, 256), nn.Linear(key_channels, 256)

        def forward(self, x, keys):
            parts = self.q(x), self.k(keys), self.v(keys)
            q, k, v = (part.unsqueeze(1) for part in parts)
            found = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.out(found.squeeze(1))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own, self.memory = Attention(256), Attention(64)
            self.mlp = nn.Sequential(nn.Linear(256, 2048), nn.ReLU(), nn.Linear(2048, 256))
            self.norms = nn.ModuleList(nn.LayerNorm(256) for _ in range(3))

        def forward(self, x, memory):
            inside = self.norms[0](x)
            x = x + self.own(inside, inside)
            x = x + self.memory(self.norms[1](x), memory)
            return x + self.mlp(self.norms[2](x))

    layers = nn.ModuleList(Layer() for _ in range(4)).to(device)
    encode = nn.Linear(256, 64).to(device)

    def run(sequence) -> list:
        memories: list = []
        answers = []
        for slice_ in sequence:
            x = slice_.flatten(1).T[None]
            if memories:
                memory = torch.cat(memories[-7:], 1)
                for layer in layers:
                    x = layer(x, memory)
            memories = [*memories[-6:], encode(x)]
            answers.append(x)
        return answers

    def step(sequence) -> None:
        torch.cat(run(sequence)).square().mean().backward()

    return _sequences("memory attention", run, step, (8,), device)


@row
def kept_embeddings(device: str) -> list[Row]:
    """A step of ECT on 8 + 8 slices of two LA volumes at half resolution: encoding them, and with
    the embeddings kept."""
    import torch

    from SAMSemiSegLib.finetuning.strategies.ect import ECTStrategy
    from SAMSemiSegLib.finetuning.strategy import Sample
    from SAMSemiSegLib.foundation.model import FOUNDATION
    from SAMSemiSegLib.run.settings import StitchingSettings
    from SAMSemiSegLib.training.progress import Progress

    torch.manual_seed(0)
    model = FOUNDATION["lite_medsam"].build()
    strategy = ECTStrategy(model, 2, StitchingSettings(), ECTStrategy.Options()).to(device).train()
    image = torch.randn(96, 72, 44, device=device)
    labels = torch.zeros(96, 72, 44, dtype=torch.uint8, device=device)

    def step() -> None:
        torch.manual_seed(1)
        labeled, unlabeled = Sample("a", image, labels, 0), Sample("b", image, None, 0)
        terms = strategy.step([labeled], [unlabeled], Progress(1, 2))
        torch.stack(list(terms.values())).sum().backward()

    began = time.perf_counter()
    step()
    first = round(time.perf_counter() - began, 2)
    kept = timed(step, device)
    remark = f"{first} s when the slices are new"
    peak = peak_gb(device)
    what = "ECT step, lite_medsam, embeddings kept"
    return [{"what": what, "seconds": kept, "peak_gb": peak, "remark": remark}]
