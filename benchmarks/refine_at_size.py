"""Description refinement of a large class list: `python -m benchmarks.refine_at_size`.

1,000 classes x 150 sentences of 512 random dimensions from three sources, already embedded. In each class a tenth of
the sentences repeat an earlier one word for word and a fifth almost repeat one (cosine about 0.995).
"""

from __future__ import annotations

import statistics

import numpy as np

from benchmarks.common import print_table, record, seconds
from stages.common.params import LABEL, Refine
from stages.refine.dataset import Text, texts_table
from stages.refine.select import EXACT, RANK, SIMILAR

CLASSES, SENTENCES, DIMENSIONS = 1000, 150, 512
SOURCES = ("one", "two", "three")
EXACT_SHARE, SIMILAR_SHARE, NOISE = 0.1, 0.2, 0.1
REPEATS = 5
REFINE = Refine(
    sources="all",
    label_prompt="a photo of a {name}.",
    cosine_threshold=0.99,
    top_k=50,
    waffle_pairs=15,
    batch_size=256,
)


def make_texts() -> tuple[list[Text], np.ndarray]:
    """The label prompts, then the sentences of class after class, with their embeddings: [N, D] float32."""
    rng = np.random.default_rng(0)
    texts = [Text(label, LABEL, f"label {label}") for label in range(CLASSES)]
    blocks = [_unit(rng.standard_normal((CLASSES, DIMENSIONS), np.float32))]
    for label in range(CLASSES):
        rows = _unit(blocks[0][label] + _unit(rng.standard_normal((SENTENCES, DIMENSIONS), np.float32)))
        sentences = [f"sentence {label} {index}" for index in range(SENTENCES)]
        kinds = rng.random(SENTENCES)
        for index in range(1, SENTENCES):
            earlier = int(rng.integers(index))
            if kinds[index] < EXACT_SHARE:
                rows[index], sentences[index] = rows[earlier], sentences[earlier]
            elif kinds[index] < EXACT_SHARE + SIMILAR_SHARE:
                rows[index] = rows[earlier] + NOISE * _unit(rng.standard_normal((1, DIMENSIONS), np.float32))[0]
        blocks.append(_unit(rows))
        texts += [Text(label, SOURCES[index * len(SOURCES) // SENTENCES], text) for index, text in enumerate(sentences)]
    return texts, np.concatenate(blocks)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def main() -> None:
    texts, embeddings = make_texts()
    tokens = np.full(len(texts), 20, dtype=np.int32)
    found = texts_table(texts, embeddings, tokens, 77, SOURCES, REFINE)
    because = found["dropped_because"].to_pylist()
    times = [seconds(lambda: texts_table(texts, embeddings, tokens, 77, SOURCES, REFINE)) for _ in range(REPEATS)]
    median = statistics.median(times)
    print_table(
        f"Refining {CLASSES:,} classes x {SENTENCES} embedded sentences ({DIMENSIONS} dimensions); median of {REPEATS}",
        ["seconds", "kept", *(f"dropped: {reason}" for reason in (EXACT, SIMILAR, RANK))],
        [(f"{median:.2f}", sum(found["kept"].drop_null().to_pylist()), *map(because.count, (EXACT, SIMILAR, RANK)))],
    )
    record("refine_at_size", {"refine_seconds": round(median, 2)}, {"seconds": [round(value, 3) for value in times]})


if __name__ == "__main__":
    main()
