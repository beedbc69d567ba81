"""The report: one JSON file with everything, one Markdown file to read."""
import json
import time


def passed(results):
    return all(part["result"] in ("passed", "skipped") for part in results)


def summary(results):
    bad = [f"{part['name']} {part['result']}" for part in results
           if part["result"] not in ("passed", "skipped")]
    return ", ".join(bad) if bad else "all that could run passed"


def figures_of(results, kind):
    return [figure for part in results for figure in part.get("figures", [])
            if figure.get("kind") == kind]


def table(titles, rows):
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return lines + [""] if rows else ["Not measured.", ""]


def share(part, whole):
    return f"{100 * part / whole:.0f} %" if whole else "?"


def best(figures, key):
    return max((figure[key] for figure in figures), default=0)


def parts_section(results):
    lines = ["## Parts", ""]
    lines += table(["part", "result", "seconds", "detail"],
                   [(p["name"], p["result"], p["seconds"], p["detail"].replace("|", "/"))
                    for p in results])
    for part in results:
        if part.get("failures"):
            lines += [f"Failed in {part['name']}:", ""]
            lines += [f"- {name}" for name in part["failures"]] + [""]
    return lines


def vector_section(results, copy):
    rows = [(f["model"], f["type"], f"{f['rows']} x {f['columns']}", f["tokens"],
             f"{f['seconds'] * 1e6:.1f}", f"{f['gb_per_s']:.1f}", share(f["gb_per_s"], copy))
            for f in figures_of(results, "vector")]
    return ["## Matrix times vectors", "", "GB/s of weights read, as a share of the copies'.", "",
            *table(["model", "type", "rows x columns", "tokens", "us", "GB/s", "of copies"], rows)]


def matrix_section(results):
    peaks = {f["path"]: f["top_per_s"] for f in figures_of(results, "peak")}
    rows = [(f["model"], f["type"], f["tokens"], f["path"], f"{f['seconds'] * 1e6:.0f}",
             f"{f['top_per_s']:.2f}", share(f["top_per_s"], peaks.get(f["path"])))
            for f in figures_of(results, "matrix")]
    lines = ["## Matrix times a prompt's tokens", "",
             "TOP/s counts two operations for each weight and token. A path's peak is what its "
             "instructions gave from registers alone.", ""]
    lines += table(["path", "peak TOP/s"], [(path, f"{peak:.2f}") for path, peak in peaks.items()])
    return lines + table(["model", "type", "tokens", "path", "us", "TOP/s", "of peak"], rows)


def attention_section(results, copy):
    rows = [(f["type"], f["kv_heads"], f["context"], f"{f['seconds'] * 1e6:.1f}",
             f"{f['gb_per_s']:.1f}", share(f["gb_per_s"], copy))
            for f in figures_of(results, "attention")]
    return ["## Attention of one token", "",
            *table(["cache", "KV heads", "context", "us", "GB/s", "of copies"], rows)]


def step_section(results):
    launches = {(f["model"], f["graphs"]): f["seconds"] for f in figures_of(results, "launches")}
    rows = []
    for f in figures_of(results, "step"):
        only = launches.get((f["model"], f["graphs"]), 0)
        rows.append((f["model"], f["layers"], "graphs" if f["graphs"] else "one by one",
                     f"{f['seconds'] * 1e6:.0f}", f"{f['submit_seconds'] * 1e6:.0f}",
                     f"{only * 1e6:.0f}", share(only, f["seconds"])))
    return ["## A decode step", "",
            "All calls of a model's layers with Q4_K weights; launches: as many of them with next to "
            "no work.", "",
            *table(["model", "layers", "launched", "us", "us to submit", "us of launches", "of the step"], rows)]


def markdown(results, origin, when):
    card = (figures_of(results, "card") or [{}])[0]
    copy = best(figures_of(results, "copy"), "gb_per_s")
    lines = [f"# gpu-check: {card.get('name', 'unknown card')}", "",
             f"Sources: {origin.get('commit', 'unknown')}. Run at {when}. {summary(results)}.", "",
             f"Compute capability {card.get('capability', '?')}, driver for CUDA "
             f"{card.get('driver_cuda', '?')}; copies on the card move {copy:.1f} GB/s, read and "
             "written together.", ""]
    for line in results[0].get("nvidia_smi", []):
        lines += [f"    {line}", ""]
    lines += parts_section(results)
    lines += vector_section(results, copy) + matrix_section(results)
    lines += attention_section(results, copy) + step_section(results)
    return "\n".join(lines)


def write(out, results, origin):
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    told = {"format": 1, "when": when, "origin": origin, "passed": passed(results),
            "parts": results}
    (out / "gpu-check.json").write_text(json.dumps(told, indent=1) + "\n")
    (out / "gpu-check.md").write_text(markdown(results, origin, when))
