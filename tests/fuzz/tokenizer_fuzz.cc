// Tokenizers of any vocabulary on any text, and back: what was encoded must come out again, in
// whole characters however it is streamed.
//
// An input is a kind (0 SentencePiece, 1 byte-level BPE, 2 a whole GGUF image), options, the
// vocabulary, and a text for the rest. The first two kinds spell the vocabulary compactly, so that
// most inputs are vocabularies that a tokenizer takes.
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "model/gguf_file.h"
#include "model/pre_tokenizer.h"
#include "model/testing/gguf_image_builder.h"
#include "model/tokenizer.h"
#include "model/unicode.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/input_reader.h"

namespace renga::fuzz {
namespace {

using model::TokenId;

constexpr uint8_t kSentencePiece = 0;
constexpr uint8_t kByteLevel = 1;
constexpr uint8_t kImage = 2;
constexpr uint8_t kKinds = 3;

// The option bits of an input.
constexpr uint8_t kAllBytes = 1;          // every byte has a token, so nothing can be lost
constexpr uint8_t kNoTypes = 2;           // no tokenizer.ggml.token_type
constexpr uint8_t kNoSpacePrefix = 4;     // tokenizer.ggml.add_space_prefix is false
constexpr uint8_t kParseSpecial = 8;      // EncodeOptions
constexpr uint8_t kAddBos = 16;           // EncodeOptions
constexpr uint8_t kUnspelledTokens = 32;  // BPE tokens are not brought into the byte alphabet

constexpr absl::string_view kSpaceMark = "\xE2\x96\x81";
constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";
constexpr const char* kPreTokenizers[] = {"gpt-2", "llama-bpe", "qwen2", "smollm", "default"};

// GGUF's token types.
constexpr int64_t kNormal = 1;
constexpr int64_t kControl = 3;
constexpr int64_t kUserDefined = 4;
constexpr int64_t kByteType = 6;

// A vocabulary as lists, and what follows from how it was made.
struct Vocabulary {
  model::GgufMetadata metadata;
  bool lossless = false;      // every text can be spelled
  bool user_defined = false;  // some tokens are cut out of the text first
  bool compose_nfc = false;
};

// The byte alphabet of byte-level vocabularies, written down a second time.
std::string Spell(absl::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    char32_t code_point = byte;
    if (byte <= 0x20) {
      code_point = 0x100u + byte;
    } else if (byte >= 0x7F && byte <= 0xA0) {
      code_point = 0x121u + (byte - 0x7Fu);
    } else if (byte == 0xAD) {
      code_point = 0x143;
    }
    model::AppendUtf8(code_point, &out);
  }
  return out;
}

// Lists of a vocabulary under construction.
struct TokenLists {
  std::vector<std::string> texts;
  std::vector<double> scores;
  std::vector<int64_t> types;
  std::vector<std::string> merges;

  void Add(std::string text, double score, int64_t type) {
    texts.push_back(std::move(text));
    scores.push_back(score);
    types.push_back(type);
  }
};

// One token: type, length, score, text. A BPE token is also the merge of its two parts.
void ReadToken(InputReader& input, bool spell, TokenLists& lists) {
  const int64_t type = input.Byte() % 7;  // 0 is no type
  const size_t length = input.Byte() % 24;
  const uint8_t score = input.Byte();
  const absl::string_view text = input.Text(length);
  lists.Add(spell && type == kNormal ? Spell(text) : std::string(text), -score, type);
  if (type == kNormal && text.size() > 1) {
    const size_t left = 1 + score % (text.size() - 1);
    lists.merges.push_back(
        absl::StrCat(Spell(text.substr(0, left)), " ", Spell(text.substr(left))));
  }
}

TokenLists ReadTokens(InputReader& input, uint8_t kind, uint8_t options) {
  TokenLists lists;
  const int count = input.Byte() % 64;
  const bool spell = kind == kByteLevel && (options & kUnspelledTokens) == 0;
  for (int i = 0; i < count; ++i) ReadToken(input, spell, lists);
  if ((options & kAllBytes) == 0) return lists;
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    if (kind == kByteLevel) {
      lists.Add(Spell(absl::string_view(&c, 1)), 0, kNormal);
    } else {
      lists.Add(absl::StrFormat("<0x%02X>", byte), 0, kByteType);
    }
  }
  return lists;
}

// Ids from 0xF0 up stand for a role that no token has.
void ReadRoles(InputReader& input, model::GgufMetadata& metadata) {
  for (const char* role : {"bos", "eos", "unknown"}) {
    const uint8_t id = input.Byte();
    if (id >= 0xF0) continue;
    metadata.Set(absl::StrCat("tokenizer.ggml.", role, "_token_id"), uint64_t{id});
  }
}

Vocabulary ReadVocabulary(InputReader& input, uint8_t kind, uint8_t options) {
  Vocabulary vocabulary;
  model::GgufMetadata& metadata = vocabulary.metadata;
  const std::string pre = kPreTokenizers[input.Byte() % std::size(kPreTokenizers)];
  const auto rules = model::FindPreTokenizer(pre);
  ReadRoles(input, metadata);
  TokenLists lists = ReadTokens(input, kind, options);
  for (const int64_t type : lists.types) {
    vocabulary.user_defined = vocabulary.user_defined || type == kUserDefined;
  }
  // Without types a role may take a byte's token away.
  const bool types = (options & kNoTypes) == 0;
  vocabulary.lossless = types && (options & kAllBytes) != 0;
  vocabulary.compose_nfc = kind == kByteLevel && rules.ok() && rules->compose_nfc;

  metadata.Set("tokenizer.ggml.model", std::string(kind == kByteLevel ? "gpt2" : "llama"));
  metadata.Set("tokenizer.ggml.pre", pre);
  metadata.Set("tokenizer.ggml.tokens", model::GgufArray(std::move(lists.texts)));
  metadata.Set("tokenizer.ggml.scores", model::GgufArray(std::move(lists.scores)));
  metadata.Set("tokenizer.ggml.merges", model::GgufArray(std::move(lists.merges)));
  metadata.Set("tokenizer.ggml.add_space_prefix", (options & kNoSpacePrefix) == 0);
  if (types) {
    metadata.Set("tokenizer.ggml.token_type", model::GgufArray(std::move(lists.types)));
  }
  return vocabulary;
}

// The strict reading of UTF-8 written down a second time: every maximal part of a character that
// is not whole becomes one U+FFFD.
std::string ReplaceBrokenUtf8(absl::string_view bytes) {
  std::string out;
  size_t i = 0;
  const auto at = [&](size_t index) {
    return index < bytes.size() ? static_cast<unsigned char>(bytes[index]) : 0u;
  };
  while (i < bytes.size()) {
    const unsigned lead = at(i);
    const size_t length = lead < 0x80                    ? 1
                          : lead >= 0xC2 && lead <= 0xDF ? 2
                          : lead >= 0xE0 && lead <= 0xEF ? 3
                          : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                         : 0;
    size_t good = length == 0 ? 0 : 1;
    while (good > 0 && good < length) {
      const unsigned next = at(i + good);
      bool fits = next >= 0x80 && next <= 0xBF;
      if (good == 1 && lead == 0xE0) fits = next >= 0xA0 && next <= 0xBF;
      if (good == 1 && lead == 0xED) fits = next >= 0x80 && next <= 0x9F;
      if (good == 1 && lead == 0xF0) fits = next >= 0x90 && next <= 0xBF;
      if (good == 1 && lead == 0xF4) fits = next >= 0x80 && next <= 0x8F;
      if (!fits) break;
      ++good;
    }
    const bool whole = length > 0 && good == length;
    const absl::string_view text = whole ? bytes.substr(i, length) : kReplacement;
    out.append(text.data(), text.size());
    i += std::max<size_t>(good, 1);
  }
  return out;
}

// Streams the tokens and compares with reading all their bytes at once.
void CheckStream(const model::Tokenizer& tokenizer, const std::vector<TokenId>& ids,
                 bool at_text_start) {
  std::string bytes;
  for (const TokenId id : ids) {
    if (!tokenizer.IsControl(id)) bytes += tokenizer.Piece(id);
  }
  if (at_text_start && tokenizer.strips_leading_space() && !bytes.empty() && bytes[0] == ' ') {
    bytes.erase(0, 1);
  }
  model::StreamDetokenizer stream(&tokenizer, at_text_start);
  std::string streamed;
  for (const TokenId id : ids) {
    const std::string text = stream.Add(id);
    Require(model::IsValidUtf8(text));
    streamed += text;
  }
  streamed += stream.Finish();
  Require(streamed == ReplaceBrokenUtf8(bytes));
}

// Ids of any kind, outside of the vocabulary, too.
void CheckAnyIds(const model::Tokenizer& tokenizer, absl::string_view text) {
  const int64_t size = tokenizer.vocab_size();
  std::vector<TokenId> ids = {-1, std::numeric_limits<TokenId>::min(),
                              std::numeric_limits<TokenId>::max()};
  uint32_t hash = 0;
  for (const char c : text.substr(0, 256)) {
    hash = hash * 31 + static_cast<unsigned char>(c);
    ids.push_back(static_cast<TokenId>(hash % static_cast<uint64_t>(size + 2)));
  }
  for (const TokenId id : ids) {
    const bool known = id >= 0 && id < size;
    if (known) continue;
    Require(tokenizer.Piece(id).empty());
    Require(!tokenizer.IsControl(id) && !tokenizer.IsEndOfGeneration(id));
  }
  CheckStream(tokenizer, ids, /*at_text_start=*/true);
  CheckStream(tokenizer, ids, /*at_text_start=*/false);
}

std::string WithoutMarks(absl::string_view text) {
  return absl::StrReplaceAll(text, {{kSpaceMark, " "}});
}

// The text that a lossless vocabulary must give back, where there is a simple answer.
std::optional<std::string> Expected(const model::Tokenizer& tokenizer, uint8_t kind,
                                    const Vocabulary& vocabulary, absl::string_view text) {
  if (!vocabulary.lossless) return std::nullopt;
  if (kind == kSentencePiece) {
    const bool prefix = tokenizer.strips_leading_space() && !text.empty();
    return absl::StrCat(prefix ? " " : "", WithoutMarks(text));
  }
  // What user-defined tokens leave is repaired and composed piece by piece.
  if (vocabulary.user_defined) return std::nullopt;
  const std::string repaired =
      model::IsValidUtf8(text) ? std::string(text) : model::RepairUtf8(text);
  return vocabulary.compose_nfc ? model::ComposeNfc(repaired) : repaired;
}

std::vector<TokenId> Encode(const model::Tokenizer& tokenizer, absl::string_view text,
                            const model::EncodeOptions& options) {
  const auto ids = tokenizer.Encode(text, options);
  Require(ids.ok());
  for (const TokenId id : *ids) Require(id >= 0 && id < tokenizer.vocab_size());
  CheckStream(tokenizer, *ids, /*at_text_start=*/true);
  return *ids;
}

void CheckPlainText(const model::Tokenizer& tokenizer, uint8_t kind, const Vocabulary& vocabulary,
                    absl::string_view text) {
  const std::vector<TokenId> ids = Encode(tokenizer, text, {});
  const std::optional<std::string> expected = Expected(tokenizer, kind, vocabulary, text);
  if (!expected.has_value()) return;
  std::string decoded;
  for (const TokenId id : ids) {
    Require(!tokenizer.IsControl(id));
    decoded += tokenizer.Piece(id);
  }
  if (kind == kSentencePiece) decoded = WithoutMarks(decoded);
  Require(decoded == *expected);
}

void Examine(InputReader input) {
  const uint8_t kind = input.Byte() % kKinds;
  const uint8_t options = input.Byte();
  Vocabulary vocabulary;
  if (kind == kImage) {
    const absl::string_view image = input.Text(input.Number());
    // A block of its own, so that a sanitizer sees a read past its end.
    const std::vector<char> bytes(image.begin(), image.end());
    const auto file = model::GgufFile::Parse(std::as_bytes(std::span(bytes)));
    if (!file.ok()) return;
    vocabulary.metadata = (*file)->metadata();
  } else {
    vocabulary = ReadVocabulary(input, kind, options);
  }
  const auto tokenizer = model::Tokenizer::Create(vocabulary.metadata);
  if (!tokenizer.ok()) return;
  const absl::string_view text = input.Rest();
  CheckPlainText(**tokenizer, kind, vocabulary, text);
  Encode(**tokenizer, text,
         {.add_bos = (options & kAddBos) != 0, .parse_special = (options & kParseSpecial) != 0});
  CheckAnyIds(**tokenizer, text);
}

// What ReadVocabulary reads.
struct SeedToken {
  int64_t type;
  uint8_t score;
  std::string text;
};
std::string Seed(uint8_t kind, uint8_t options, uint8_t pre, const std::vector<SeedToken>& tokens,
                 absl::string_view text) {
  std::string seed = {
      static_cast<char>(kind),         static_cast<char>(options), static_cast<char>(pre), 1, 2, 0,
      static_cast<char>(tokens.size())};
  for (const SeedToken& token : tokens) {
    absl::StrAppend(&seed, std::string(1, static_cast<char>(token.type)),
                    std::string(1, static_cast<char>(token.text.size())),
                    std::string(1, static_cast<char>(token.score)), token.text);
  }
  return absl::StrCat(seed, text);
}

std::string ImageSeed(const std::string& kind, absl::string_view text) {
  using model::GgufImageBuilder;
  constexpr uint32_t kFloat = 6, kInt = 5, kString = 8;
  std::string tokens, scores, types;
  const std::vector<std::string> texts = {"<unk>", "<s>", "</s>", "a", "b", "ab", "\u2581a"};
  for (size_t i = 0; i < texts.size(); ++i) {
    tokens += GgufImageBuilder::StringBytes(texts[i]);
    scores += GgufImageBuilder::Bytes(-static_cast<float>(i));
    types += GgufImageBuilder::Bytes(static_cast<int32_t>(i < 3 ? kControl : kNormal));
  }
  GgufImageBuilder builder;
  builder.AddString("tokenizer.ggml.model", kind).AddString("tokenizer.ggml.pre", "llama-bpe");
  builder.AddArray("tokenizer.ggml.tokens", kString, texts.size(), tokens);
  builder.AddArray("tokenizer.ggml.scores", kFloat, texts.size(), scores);
  builder.AddArray("tokenizer.ggml.token_type", kInt, texts.size(), types);
  builder.AddArray("tokenizer.ggml.merges", kString, 1, GgufImageBuilder::StringBytes("a b"));
  builder.AddUint32("tokenizer.ggml.bos_token_id", 1);
  const std::string image = builder.Build();
  return absl::StrCat(std::string({kImage, 0, static_cast<char>(image.size() & 0xFF),
                                   static_cast<char>(image.size() >> 8)}),
                      image, text);
}

}  // namespace

std::vector<std::string> Seeds() {
  const std::string text =
      "The r\u00e9sum\u00e9s of 1234  \u6c34 \U0001F600 \xE2\x96 ab<s>abab\n\n";
  const std::vector<SeedToken> sentence_pieces = {
      {2, 0, "<unk>"},  {3, 0, "<s>"},    {3, 0, "</s>"},     {1, 1, "ab"},
      {1, 2, "abab"},   {5, 3, "ba"},     {4, 0, "1234"},     {1, 4, "\u2581a"},
      {1, 5, "\u2581"}, {1, 6, "\u6c34"}, {4, 0, "\u2581of"}, {1, 7, "\u2581\u2581"}};
  const std::vector<SeedToken> byte_level = {
      {3, 0, "<s>"},      {3, 0, "</s>"},        {1, 0, "ab"},   {1, 1, "abab"},
      {1, 0, " o"},       {1, 1, " of"},         {4, 0, "1234"}, {1, 0, "\xc3\xa9"},
      {1, 0, "\xe6\xb0"}, {1, 1, "\xe6\xb0\xb4"}};
  std::vector<std::string> seeds = {ImageSeed("llama", text), ImageSeed("gpt2", text)};
  for (const uint8_t options : {0, 1, 5, 9, 25, 35}) {
    seeds.push_back(Seed(kSentencePiece, options, 4, sentence_pieces, text));
  }
  for (uint8_t pre = 0; pre < std::size(kPreTokenizers); ++pre) {
    for (const uint8_t options : {1, 9, 24}) {
      seeds.push_back(Seed(kByteLevel, options, pre, byte_level, text));
    }
  }
  return seeds;
}

}  // namespace renga::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  renga::fuzz::Examine(
      renga::fuzz::InputReader(absl::string_view(reinterpret_cast<const char*>(data), size)));
  return 0;
}
