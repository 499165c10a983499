"""refine: `descriptions/<dataset>/<source>.json` -> `data/<dataset>/<model>/texts.parquet`, one row a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from stages.common import paths
from stages.common.cli import Job, parse_job
from stages.common.encoders import load_encoder
from stages.common.errors import run
from stages.common.params import Refine
from stages.common.tables import Meta, embedding_column, make_meta, read_table, write_table
from stages.refine.baselines import join_descriptor, waffle_descriptors
from stages.refine.select import EXACT, RANK, SIMILAR, select
from stages.refine.sources import match_classes, read_descriptions

LABEL, TEMPLATE, WAFFLE = "label", "template", "waffle"


@dataclass(frozen=True)
class Text:
    """A text of one class, before it is embedded."""

    label: int
    source: str
    description: str


def collect_texts(job: Job, names: Sequence[str], templates: Sequence[str], aliases: dict[str, str]) -> list[Text]:
    """Every text of every class: label prompts, templates, each source in order, random descriptors."""
    prompts = [job.params.refine.label_prompt.format(name=name) for name in names]
    random = waffle_descriptors(job.params.seed, job.params.refine.waffle_pairs)

    def generate() -> Iterator[tuple[str, int, str]]:
        for label, prompt in enumerate(prompts):
            yield LABEL, label, prompt
        for label, name in enumerate(names):
            yield from ((TEMPLATE, label, template.format(name=name)) for template in templates)
        for source, kind in job.params.sources.items():
            path = paths.descriptions(job.dataset, source)
            for label, texts in enumerate(match_classes(path, read_descriptions(path), names, aliases)):
                if kind == "descriptors":
                    texts = [join_descriptor(prompts[label], text) for text in texts]
                yield from ((source, label, text) for text in texts)
        for label, prompt in enumerate(prompts):
            yield from ((WAFFLE, label, join_descriptor(prompt, text)) for text in random)

    return [Text(label, source, text) for source, label, text in generate()]


def texts_table(texts: Sequence[Text], embeddings: np.ndarray, sources: Sequence[str], refine: Refine) -> pa.Table:
    """The table of texts, with the refinement of the union of `sources`.

    Args:
        texts: N texts, those of LABEL first, by label.
        embeddings: [N, D] float32 of unit norm.
        sources: whose union is refined, in order; the texts of all others get `kept` null.
    """
    rank = {source: place for place, source in enumerate(sources)}
    labels = np.array([text.label for text in texts], dtype=np.int32)
    label_prompts = embeddings[: labels.max() + 1]
    similarity = np.einsum("nd,nd->n", embeddings, label_prompts[labels]).astype(np.float32)
    kept: list[bool | None] = [None] * len(texts)
    because: list[str | None] = [None] * len(texts)
    duplicate_of: list[int | None] = [None] * len(texts)
    union: list[list[int]] = [[] for _ in label_prompts]
    for row, text in sorted(enumerate(texts), key=lambda item: rank.get(item[1].source, -1)):
        if text.source in rank:
            union[text.label].append(row)
    for rows in map(np.array, filter(None, union)):
        chosen = select(
            [texts[row].description for row in rows],
            embeddings[rows],
            similarity[rows],
            refine.cosine_threshold,
            refine.top_k,
        )
        for place, row in enumerate(rows):
            kept[row], because[row] = bool(chosen.kept[place]), chosen.dropped_because[place]
            if chosen.duplicate_of[place] >= 0:
                duplicate_of[row] = int(rows[chosen.duplicate_of[place]])
    return pa.table(
        {
            "label": labels,
            "source": [text.source for text in texts],
            "description": [text.description for text in texts],
            "label_similarity": similarity,
            "kept": pa.array(kept, pa.bool_()),
            "dropped_because": pa.array(because, pa.string()),
            "duplicate_of": pa.array(duplicate_of, pa.int32()),
            "embedding": embedding_column(embeddings),
        }
    )


def main() -> None:
    job = parse_job("refine", __doc__, "dataset", "model")
    classes, made_by = read_table(paths.classes(job.dataset), "classes")
    known: Meta = made_by["parameters"]
    texts = collect_texts(job, classes["name"].to_pylist(), known["templates"], known["aliases"])
    encoder = load_encoder(job.model, job.params)
    distinct = list(dict.fromkeys(text.description for text in texts))
    place = {description: row for row, description in enumerate(distinct)}
    embedded = encoder.encode_texts(distinct, job.params.refine.batch_size, progress="texts").numpy()
    embeddings = embedded[[place[text.description] for text in texts]]
    sources = job.params.refined_sources()
    table = texts_table(texts, embeddings, sources, job.params.refine)
    parameters = {
        "seed": job.params.seed,
        "sources": job.params.sources,
        "refined": sources,
        **job.params.refine.model_dump(exclude={"sources", "batch_size"}),
    }
    meta = make_meta("texts", job.dataset, parameters=parameters, model={**encoder.meta, "precision": "float32"})
    write_table(paths.texts(job.dataset, job.model), table, meta)
    print(summary(job, table))


def summary(job: Job, table: pa.Table) -> str:
    """How many descriptions were refined and what became of them, in one line."""
    kept = Counter(table["kept"].to_pylist())
    why = Counter(table["dropped_because"].to_pylist())
    return (
        f"refine {job.dataset} {job.model}: of {kept[True] + kept[False]} descriptions {kept[True]} kept; dropped "
        f"{why[EXACT]} exact duplicates, {why[SIMILAR]} similar, {why[RANK]} below the top {job.params.refine.top_k}"
    )


if __name__ == "__main__":
    run(main)
