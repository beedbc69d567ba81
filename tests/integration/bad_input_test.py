#!/usr/bin/env python3
"""Wrong input gives one clear sentence and a non-zero exit, never a crash or a hang."""
import pathlib
import socket
import struct
import unittest

from renga_process import ProcessTest, free_port, golden


class BadInputTest(ProcessTest):

    def damaged(self, change):
        """A copy of a good model after `change(bytearray)`."""
        path, _, _ = golden("llama-gqa-q8_0")
        content = bytearray(pathlib.Path(path).read_bytes())
        changed = change(content)
        bad = self.folder / "bad.gguf"
        bad.write_bytes(content if changed is None else changed)
        return bad

    def refuse_model(self, change, *words):
        bad = self.damaged(change)
        self.assert_refused(self.renga("run", bad, "hello"), *words)
        self.assert_refused(self.renga("logits", bad, "--tokens", "1", "-o", self.folder / "o"))

    def test_missing_file(self):
        self.assert_refused(self.renga("run", "/nowhere/model.gguf", "hi"), "/nowhere/model.gguf")

    def test_empty_file(self):
        self.refuse_model(lambda b: b[:0])

    def test_truncated_at_many_places(self):
        size = len(pathlib.Path(golden("llama-gqa-q8_0")[0]).read_bytes())
        for keep in (3, 4, 8, 20, 24, 100, 5000, size // 2, size - 1):
            with self.subTest(keep=keep):
                self.refuse_model(lambda b, keep=keep: b[:keep])

    def test_wrong_magic(self):
        def change(b):
            b[0:4] = b"GGML"
        self.refuse_model(change, "GGUF")

    def test_unknown_version(self):
        def change(b):
            b[4:8] = struct.pack("<I", 99)
        self.refuse_model(change, "99")

    def test_absurd_counts(self):
        for offset in (8, 16):
            for value in (2**63, 2**64 - 1, 2**40):
                def change(b, offset=offset, value=value):
                    b[offset:offset + 8] = struct.pack("<Q", value)
                with self.subTest(offset=offset, value=value):
                    self.refuse_model(change)

    def test_absurd_key_length(self):
        def change(b):
            b[24:32] = struct.pack("<Q", 2**62)
        self.refuse_model(change)

    def test_unknown_architecture(self):
        def change(b):
            at = b.index(b"general.architecture") + len("general.architecture") + 4 + 8
            self.assertEqual(bytes(b[at:at + 5]), b"llama")
            b[at:at + 5] = b"xlama"
        self.refuse_model(change, "xlama", "llama")

    def tensor_record(self, b, name=b"blk.0.attn_q.weight"):
        """Offset of the record's dimension count."""
        return b.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)

    def test_unknown_tensor_type(self):
        def change(b):
            at = self.tensor_record(b)
            dims = struct.unpack_from("<I", b, at)[0]
            struct.pack_into("<I", b, at + 4 + 8 * dims, 16)  # IQ2_XXS, which renga lacks
        self.refuse_model(change, "blk.0.attn_q.weight")

    def test_overlapping_tensors(self):
        def change(b):
            at = self.tensor_record(b)
            dims = struct.unpack_from("<I", b, at)[0]
            struct.pack_into("<Q", b, at + 4 + 8 * dims + 4, 0)
        self.refuse_model(change, "overlap")

    def test_wrong_shape(self):
        def change(b):
            at = self.tensor_record(b)
            struct.pack_into("<Q", b, at + 4, 2**33)
        self.refuse_model(change)

    def test_token_out_of_range(self):
        path, _, _ = golden("llama-gqa-q8_0")
        for token in ("512", "-1", "99999999999999999999", "x"):
            with self.subTest(token=token):
                done = self.renga("logits", path, f"--tokens=1,{token}", "-o", self.folder / "o")
                self.assert_refused(done, token)

    def test_prompt_longer_than_the_context(self):
        path, _, _ = golden("story-f32")
        done = self.renga("run", path, "once " * 500, "--context", 64)
        self.assert_refused(done, "64", "context")

    def test_too_little_memory_is_refused_with_the_numbers(self):
        path, _, _ = golden("llama-f32")
        done = self.renga("run", path, "hello", "--workers", 2, "--memory", "1MiB")
        self.assert_refused(done, "1.0 MiB")

    def test_bad_memory_size(self):
        path, _, _ = golden("llama-f32")
        self.assert_refused(self.renga("run", path, "hello", "--memory", "lots"), "lots")

    def test_a_cache_that_is_no_folder(self):
        taken = self.folder / "file"
        taken.write_text("no folder")
        for cache in (taken, taken / "below", "/proc/renga"):
            done = self.renga("worker", "127.0.0.1:1", "--insecure", "--memory", "64MiB", "--cache",
                              cache)
            self.assert_refused(done, "--cache", str(cache))

    def test_port_in_use(self):
        path, _, _ = golden("llama-f32")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            done = self.renga("up", path, "--listen", f"127.0.0.1:{port}", "--http",
                              f"127.0.0.1:{free_port()}")
            self.assert_refused(done, str(port))
            done = self.renga("serve", path, "--http", f"127.0.0.1:{port}")
            self.assert_refused(done, str(port))

    def test_unreachable_coordinator(self):
        port = free_port()
        done = self.renga("worker", f"127.0.0.1:{port}", "--token", "ab" * 16 + "." + "cd" * 32)
        self.assert_refused(done, str(port))

    def test_malformed_join_token(self):
        done = self.renga("worker", "127.0.0.1:7400", "--token", "nonsense")
        self.assert_refused(done, "token")

    def test_status_without_a_coordinator(self):
        self.assert_refused(self.renga("status", "--http", f"127.0.0.1:{free_port()}"))

    def test_nothing_to_measure(self):
        path, _, _ = golden("story-f32")
        self.assert_refused(self.renga("bench", path, "-p", "0", "-n", "0"), "-p", "-n")

    def test_more_than_there_is(self):
        path, _, _ = golden("story-f32")
        done = self.renga("run", path, "hi", "--workers", "2", "--tensor-parallel", "3")
        self.assert_refused(done, "a group of 3 needs 3 workers, and there are 2")
        done = self.renga("run", path, "hi", "--approximate", "without-layers=99")
        self.assert_refused(done, "there is no layer 99", "layers 0 to ")
        done = self.renga("run", path, "hi", "-n", "2", "--workers", "2", "--embedding", "7")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"note: the embedding stays with the coordinator: stage 7", done.stderr)

    def test_wrong_flag_names_the_help(self):
        done = self.renga("run", "--no-such-flag")
        self.assertEqual(done.returncode, 2)
        self.assertIn("--help", done.stderr.decode())


class HelpTest(ProcessTest):

    def test_every_command_has_help_with_an_example(self):
        for command in ("run", "up", "serve", "worker", "plan", "status", "bench", "tokenize",
                        "logits", "perplexity", "regions"):
            with self.subTest(command=command):
                text = self.renga_ok(command, "--help")
                self.assertIn("Example:", text)
                self.assertIn(f"renga {command}", text)


if __name__ == "__main__":
    unittest.main(verbosity=2)
