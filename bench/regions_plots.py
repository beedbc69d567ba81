"""The pictures of docs/regions.md, from what bench/regions_study.py measured. Needs matplotlib."""
import json
import os

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
MB = 1e6
# A screen: 3 bits of each number and what proves; what the basis and the backend's identity take for
# each squared number of a hidden state (docs/regions.md).
SCREEN_SHARE, BASIS_BYTES, IDENTITY_BYTES = 0.36, 4, 1.06
Q8_0_BYTES = 34 / 32
CARD_MB = 2**32 / MB
WIDTH = 4096
VOCABULARIES = {"32k": 32_000, "128k": 128_256, "256k": 256_000}


def short_name(study):
    return "SmolLM2-135M" if "smol" in study["model"].lower() else "Gemma 3 270M"


def save(figure, folder, name):
    figure.tight_layout()
    path = os.path.join(folder, name)
    # Neither date nor random ids, so that the same figures give the same file.
    plt.rcParams["svg.hashsalt"] = name
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    print(path)


def finish(axes, title, x, y):
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)


def draw_working_sets(studies, folder):
    figure, (rows, neurons) = plt.subplots(1, 2, figsize=(10, 3.8))
    for colour, study in zip(COLOURS, studies):
        points = study["row_working_set"]
        x = [point["positions"] for point in points]
        for key, line, label in (("best_rows", "-", "among the best 40"),
                                 ("input_rows", "--", "of the input"), ("first_rows", ":", "the best")):
            rows.plot(x, [100 * point[key] / study["vocabulary"] for point in points], line,
                      color=colour, label=f"{short_name(study)}, {label}")
        points = study["neuron_working_set"]
        neurons.plot([point["positions"] for point in points],
                     [100 * point["share"] for point in points], color=colour,
                     label=short_name(study))
    finish(rows, "Rows of the vocabulary", "tokens of text", "rows used so far, %")
    finish(neurons, "Neurons (a twentieth is called active at a token)", "tokens of text",
           "neurons used so far, %")
    rows.legend(fontsize=7, loc="upper left")
    neurons.legend(fontsize=7)
    rows.set_ylim(0, 25)
    neurons.set_ylim(bottom=0)
    save(figure, folder, "working-sets.svg")


def draw_coverage(studies, folder):
    figure, (rows, neurons) = plt.subplots(1, 2, figsize=(10, 3.8))
    for colour, study in zip(COLOURS, studies):
        points = study["row_caches"]
        x = [100 * point["rows"] / study["vocabulary"] for point in points]
        for key, line, label in (("first_in_hot_or_seen", "-", "hottest or in the text"),
                                 ("first_in_hot", "--", "hottest"),
                                 ("first_in_recent", ":", "most recent")):
            rows.plot(x, [100 * point[key] for point in points], line, color=colour,
                      label=f"{short_name(study)}, {label}")
        points = study["neuron_caches"]
        x = [100 * point["share"] for point in points]
        for key, line, label in (("strongest_of_token", "-", "strongest of each token"),
                                 ("hottest_of_text", "--", "hottest of the text"),
                                 ("hottest", ":", "hottest of all texts")):
            neurons.plot(x, [100 * point[key] for point in points], line, color=colour,
                         label=f"{short_name(study)}, {label}")
    rows.set_xscale("log")
    finish(rows, "A cache of rows", "rows held, % of the vocabulary",
           "tokens whose best row is there, %")
    finish(neurons, "A cache of neurons", "neurons held, % of each layer", "of what neurons add, %")
    for axes in (rows, neurons):
        axes.legend(fontsize=7, loc="lower right")
        axes.set_ylim(0, 102)
    save(figure, folder, "coverage.svg")


def kl_of(study, name, text="all"):
    return study["modes"][name]["texts"][text]["kl"]


def draw_layers(studies, folder):
    figure, all_axes = plt.subplots(1, len(studies), figsize=(10, 3.8), squeeze=False)
    for axes, study in zip(all_axes[0], studies):
        layers = range(study["layers"])
        for colour, part in zip(COLOURS, ("layers", "attention", "feed-forward")):
            names = [f"without-{part}={layer}" for layer in layers]
            if any(name not in study["modes"] for name in names):
                continue
            axes.plot(layers, [kl_of(study, name) for name in names], "o-", markersize=3,
                      color=colour, label="all of it" if part == "layers" else f"its {part}")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=7)
        finish(axes, f"{short_name(study)}: one layer left out", "layer", "KL, nats a token")
    save(figure, folder, "layers.svg")


# Of the weights, what a mode does without, for now: the share of `part` that its percent names.
def series_of(study):
    """(label, whether memory is saved today, [(share of the weights, KL)]) of each kind of mode."""
    modes, weights = study["modes"], study["weights_bytes"]
    last = study["layers"] - 1
    feed_forward = modes[f"without-feed-forward=0-{last}"]["saved_bytes"]
    head = study["vocabulary"] * study["head_row_bytes"]
    kinds = {}

    def add(label, saves, share, name):
        kinds.setdefault((label, saves), []).append((100 * share, kl_of(study, name)))

    for name, mode in modes.items():
        kind, _, value = name.partition("=")
        plain = value.rstrip("%").isdigit()
        if kind == "cold-neurons":
            add("cold neurons at 3.5 bits", True, mode["saved_bytes"] / weights, name)
        elif kind == "without-layers" and "-" not in value:
            add("whole layers left out", True, mode["saved_bytes"] / weights, name)
        elif kind == "late-slice" and plain:
            add("late slice", False,
                int(value[:-1]) / 100 * feed_forward / weights, name)
        elif kind == "missing" and plain:
            add("missing feed-forwards", False, int(value[:-1]) / 100 * feed_forward / weights, name)
        elif kind == "hot-rows" and value.endswith("by regions"):
            add("cold rows absent (hot by regions)", False,
                (100 - int(value.split("%")[0])) / 100 * head / weights, name)
    return kinds


def lower_front(points):
    """Of several points with the same share, the cheapest one: single layers are many."""
    best = {}
    for x, y in points:
        key = round(x, 1)
        if key not in best or y < best[key][1]:
            best[key] = (x, y)
    return sorted(best.values())


def draw_memory(studies, folder):
    figure, all_axes = plt.subplots(1, len(studies), figsize=(10, 4.2), squeeze=False)
    for axes, study in zip(all_axes[0], studies):
        for colour, ((label, saves), points) in zip(COLOURS, sorted(series_of(study).items())):
            points = [point for point in lower_front(points) if point[1] > 0]
            if not points:
                continue
            axes.plot([x for x, _ in points], [y for _, y in points], "o-" if saves else "s--",
                      markersize=4, color=colour, label=label)
        axes.set_yscale("log")
        axes.legend(fontsize=7)
        finish(axes, f"{short_name(study)}: dashed, memory is not saved today",
               "of the weights, what the mode does without, %", "KL, nats a token")
    save(figure, folder, "memory.svg")


def screen_mb(rows, width=WIDTH):
    head = rows * width * Q8_0_BYTES
    return (SCREEN_SHARE * head + (BASIS_BYTES + IDENTITY_BYTES) * width * width) / MB


def draw_cards(folder):
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    places = range(len(VOCABULARIES))
    whole = [rows * WIDTH * Q8_0_BYTES / MB for rows in VOCABULARIES.values()]
    screened = [screen_mb(rows) for rows in VOCABULARIES.values()]
    for shift, values, label, colour in ((-0.2, whole, "all rows, Q8_0", COLOURS[1]),
                                         (0.2, screened, "behind a screen", COLOURS[0])):
        bars = axes.bar([place + shift for place in places], values, 0.38, label=label, color=colour)
        axes.bar_label(bars, [f"{value:.0f} MB\n{100 * value / CARD_MB:.1f}%" for value in values],
                       fontsize=7)
    axes.set_xticks(list(places), list(VOCABULARIES))
    axes.set_ylim(0, max(whole) * 1.2)
    axes.legend(fontsize=8)
    finish(axes, f"Output head {WIDTH} wide, share of a card of 4 GiB (computed)", "vocabulary",
           "MB in memory")
    save(figure, folder, "cards.svg")


def draw(paths, folder):
    studies = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            studies.append(json.load(file))
    studies.sort(key=lambda study: study["vocabulary"])
    os.makedirs(folder, exist_ok=True)
    draw_working_sets(studies, folder)
    draw_coverage(studies, folder)
    draw_layers(studies, folder)
    draw_memory(studies, folder)
    draw_cards(folder)
