#!/usr/bin/env python3
"""A plain pass through mixtures of experts in double precision, which shares nothing with renga:
its own reader of GGUF files, its own decoding of a few formats, loops over numbers.

    expert_reference.py MODEL.gguf 1,2,3 OUT.f32     writes the logits after each token
"""
import array
import math
import operator
import pathlib
import struct
import sys

F32, F16, Q4_0, Q8_0 = 0, 1, 2, 8


class Gguf:
    """Metadata and tensors of a GGUF file, version 3, little endian."""

    SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
               12: "d"}

    def __init__(self, path):
        self.data = pathlib.Path(path).read_bytes()
        self.at = 4
        assert self.data[:4] == b"GGUF" and self.take("I") == 3
        tensors, keys = self.take("Q"), self.take("Q")
        self.metadata = {}
        for _ in range(keys):
            key = self.string()
            self.metadata[key] = self.value(self.take("I"))
        records = [(self.string(), [self.take("Q") for _ in range(self.take("I"))],
                    self.take("I"), self.take("Q")) for _ in range(tensors)]
        alignment = self.metadata.get("general.alignment", 32)
        start = (self.at + alignment - 1) // alignment * alignment
        self.tensors = {name: (dims, kind, start + offset) for name, dims, kind, offset in records}

    def take(self, code):
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def string(self):
        size = self.take("Q")
        self.at += size
        return self.data[self.at - size:self.at].decode("utf-8", "replace")

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            inner, count = self.take("I"), self.take("Q")
            return [self.value(inner) for _ in range(count)]
        return self.take(self.SCALARS[kind])

    def floats(self, name):
        """All numbers of a tensor, in the file's order."""
        dims, kind, at = self.tensors[name]
        count = math.prod(dims)
        if kind == F32:
            return list(struct.unpack_from(f"<{count}f", self.data, at))
        if kind == F16:
            return list(struct.unpack_from(f"<{count}e", self.data, at))
        numbers = []
        for block in range(count // 32):
            if kind == Q8_0:
                scale, *codes = struct.unpack_from("<e32b", self.data, at + 34 * block)
            else:
                assert kind == Q4_0
                scale, *pairs = struct.unpack_from("<e16B", self.data, at + 18 * block)
                codes = [(p & 15) - 8 for p in pairs] + [(p >> 4) - 8 for p in pairs]
            numbers += [scale * code for code in codes]
        return numbers

    def matrices(self, name):
        """The matrices of a tensor, as lists of rows."""
        dims = self.tensors[name][0]
        width, rows = dims[0], dims[1] if len(dims) > 1 else 1
        numbers = self.floats(name)
        lines = [numbers[i:i + width] for i in range(0, len(numbers), width)]
        return [lines[i:i + rows] for i in range(0, len(lines), rows)]


def dot(a, b):
    return math.fsum(map(operator.mul, a, b))


def times(matrix, vector):
    return [dot(row, vector) for row in matrix]


def rms_norm(x, weight, epsilon):
    scale = 1 / math.sqrt(dot(x, x) / len(x) + epsilon)
    return [v * scale * w for v, w in zip(x, weight)]


def rotated(head, position, base, halves):
    out, half = list(head), len(head) // 2
    for i in range(half):
        a, b = (i, i + half) if halves else (2 * i, 2 * i + 1)
        angle = position * base ** (-2 * i / len(head))
        out[a] = head[a] * math.cos(angle) - head[b] * math.sin(angle)
        out[b] = head[a] * math.sin(angle) + head[b] * math.cos(angle)
    return out


def softmax(scores):
    powers = [math.exp(s - max(scores)) for s in scores]
    return [p / sum(powers) for p in powers]


class Model:
    def __init__(self, path):
        self.file = Gguf(path)
        get = self.file.metadata.get
        arch = get("general.architecture")
        self.is_qwen = arch == "qwen3moe"
        key = lambda name: get(f"{arch}.{name}")
        self.layers, self.heads = key("block_count"), key("attention.head_count")
        self.kv_heads, self.head_dim = key("attention.head_count_kv"), key("attention.key_length")
        self.epsilon, self.base = key("attention.layer_norm_rms_epsilon"), key("rope.freq_base")
        self.experts, self.used = key("expert_count"), key("expert_used_count")
        self.weights = {}
        self.least_margin = math.inf  # of the last chosen expert's score before the next one's
        self.used_experts = set()

    def of(self, name):
        if name not in self.weights:
            self.weights[name] = self.file.matrices(name)
        return self.weights[name]

    def matrix(self, name):
        return self.of(name)[0]

    def vector(self, name):
        return self.matrix(name)[0]

    def head_rows(self, x, norm, position):
        size = self.head_dim
        heads = [x[i:i + size] for i in range(0, len(x), size)]
        if self.is_qwen:
            heads = [rms_norm(head, self.vector(norm), self.epsilon) for head in heads]
        return [rotated(head, position, self.base, self.is_qwen) for head in heads]

    def attention(self, blk, x, position, cache):
        q = self.head_rows(times(self.matrix(blk + "attn_q.weight"), x),
                           blk + "attn_q_norm.weight", position)
        k = self.head_rows(times(self.matrix(blk + "attn_k.weight"), x),
                           blk + "attn_k_norm.weight", position)
        v = times(self.matrix(blk + "attn_v.weight"), x)
        size = self.head_dim
        cache.append((k, [v[i:i + size] for i in range(0, len(v), size)]))
        out = []
        for h, query in enumerate(q):
            kv = h // (self.heads // self.kv_heads)
            weights = softmax([dot(query, keys[kv]) / math.sqrt(size) for keys, _ in cache])
            out += [math.fsum(w * values[kv][i] for w, (_, values) in zip(weights, cache))
                    for i in range(size)]
        return times(self.matrix(blk + "attn_output.weight"), out)

    def mixture(self, blk, x):
        scores = times(self.matrix(blk + "ffn_gate_inp.weight"), x)
        order = sorted(range(self.experts), key=lambda e: (-scores[e], e))
        chosen = order[:self.used]
        if self.used < self.experts:
            self.least_margin = min(self.least_margin,
                                    scores[chosen[-1]] - scores[order[self.used]])
        # The softmax over all, made to add up to 1 again over the chosen.
        of_all = softmax(scores)
        total = sum(of_all[e] for e in chosen)
        out = [0.0] * len(x)
        for e in chosen:
            self.used_experts.add((blk, e))
            gate = times(self.of(blk + "ffn_gate_exps.weight")[e], x)
            up = times(self.of(blk + "ffn_up_exps.weight")[e], x)
            inner = [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up)]
            down = times(self.of(blk + "ffn_down_exps.weight")[e], inner)
            out = [o + of_all[e] / total * d for o, d in zip(out, down)]
        return out

    def logits(self, tokens):
        """One row for each token."""
        caches = [[] for _ in range(self.layers)]
        rows = []
        for position, token in enumerate(tokens):
            x = self.matrix("token_embd.weight")[token]
            for layer, cache in enumerate(caches):
                blk = f"blk.{layer}."
                normed = rms_norm(x, self.vector(blk + "attn_norm.weight"), self.epsilon)
                x = list(map(operator.add, x, self.attention(blk, normed, position, cache)))
                normed = rms_norm(x, self.vector(blk + "ffn_norm.weight"), self.epsilon)
                x = list(map(operator.add, x, self.mixture(blk, normed)))
            normed = rms_norm(x, self.vector("output_norm.weight"), self.epsilon)
            rows.append(times(self.matrix("output.weight"), normed))
        return rows


def main(path, tokens, out):
    rows = Model(path).logits([int(token) for token in tokens.split(",")])
    numbers = array.array("f", [number for row in rows for number in row])
    pathlib.Path(out).write_bytes(numbers.tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
