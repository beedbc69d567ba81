// The real vocabularies: every vector of the shared test data must come out exactly.
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "model/gguf_file.h"
#include "model/tokenizer.h"
#include "nlohmann/json.hpp"

namespace renga::model {
namespace {

using ::testing::ElementsAreArray;

std::string TokenizerData(const std::string& name) {
  const char* root = std::getenv("RENGA_SHARED_DATA");
  return absl::StrCat(root != nullptr ? root : RENGA_SOURCE_DIR "/../shared/data", "/tokenizers/",
                      name);
}

bool Exists(const std::string& path) { return std::ifstream(path).good(); }

std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

struct Vocabulary {
  std::string name;
  const char* model_variable;  // names the file when it is not among the shared data
  std::string default_model;   // in the user's cache
};

void PrintTo(const Vocabulary& vocabulary, std::ostream* out) { *out << vocabulary.name; }

std::string VocabularyFile(const Vocabulary& vocabulary) {
  if (vocabulary.model_variable == nullptr) {
    return TokenizerData(absl::StrCat("ggml-vocab-", vocabulary.name, ".gguf"));
  }
  const char* path = std::getenv(vocabulary.model_variable);
  if (path != nullptr) return path;
  return absl::StrCat(base::CacheDirectory(), "/models/", vocabulary.default_model);
}

class TokenizerVectorsTest : public ::testing::TestWithParam<Vocabulary> {
 protected:
  void SetUp() override {
    const std::string path = VocabularyFile(GetParam());
    if (!Exists(path)) GTEST_SKIP() << "the vocabulary " << path << " is not there";
    ASSERT_OK_AND_ASSIGN(file_, GgufFile::Open(path));
    ASSERT_OK_AND_ASSIGN(tokenizer_, Tokenizer::Create(file_->metadata()));
  }

  std::unique_ptr<GgufFile> file_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

void CheckVector(const Tokenizer& tokenizer, const nlohmann::json& vector) {
  SCOPED_TRACE(vector["name"].get<std::string>());
  const std::string text = absl::HexStringToBytes(vector["hex"].get<std::string>());
  EncodeOptions options;
  options.add_bos = vector["add_special"].get<bool>();
  options.parse_special = vector["parse_special"].get<bool>();
  ASSERT_OK_AND_ASSIGN(const std::vector<TokenId> ids, tokenizer.Encode(text, options));
  const auto expected = vector["ids"].get<std::vector<TokenId>>();
  EXPECT_THAT(ids, ElementsAreArray(expected));
  const auto pieces = vector["pieces"].get<std::vector<std::string>>();
  ASSERT_EQ(pieces.size(), expected.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    EXPECT_EQ(absl::BytesToHexString(tokenizer.Piece(expected[i])), pieces[i]);
  }
}

TEST_P(TokenizerVectorsTest, AgreesWithEveryVector) {
  const std::string path = TokenizerData(GetParam().name + ".vectors.json");
  if (!Exists(path)) GTEST_SKIP() << "the vectors " << path << " are not there";
  const nlohmann::json document = nlohmann::json::parse(ReadAll(path));
  EXPECT_EQ(tokenizer_->vocab_size(), document["n_tokens"].get<int64_t>());
  ASSERT_GT(document["vectors"].size(), 200u);
  for (const nlohmann::json& vector : document["vectors"]) CheckVector(*tokenizer_, vector);
}

// The pairs of files that come with the vocabularies: texts between marker lines, ids a line each.
TEST_P(TokenizerVectorsTest, AgreesWithTheVocabulariesOwnVectors) {
  const std::string base = TokenizerData(absl::StrCat("ggml-vocab-", GetParam().name, ".gguf"));
  if (!Exists(base + ".inp")) GTEST_SKIP() << "there is no " << base << ".inp";
  const std::vector<std::string> texts =
      absl::StrSplit(ReadAll(base + ".inp"), "\n__ggml_vocab_test__\n");
  const std::vector<std::string> lines = absl::StrSplit(ReadAll(base + ".out"), '\n');
  ASSERT_GE(lines.size(), texts.size() - 1);
  ASSERT_GT(texts.size(), 40u);
  for (size_t i = 0; i + 1 < texts.size(); ++i) {
    std::vector<TokenId> expected;
    for (absl::string_view number : absl::StrSplit(lines[i], ' ', absl::SkipWhitespace())) {
      TokenId id = -1;
      ASSERT_TRUE(absl::SimpleAtoi(number, &id));
      expected.push_back(id);
    }
    SCOPED_TRACE(texts[i]);
    EXPECT_THAT(tokenizer_->Encode(texts[i], {}),
                testing::IsOkAndHolds(ElementsAreArray(expected)));
  }
}

// Text that needs no change comes back whole, and no half character is ever given out.
TEST_P(TokenizerVectorsTest, StreamGivesTheTextBack) {
  const std::string text = "Grüße, 世界! \xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA7 naïve 1234\n";
  ASSERT_OK_AND_ASSIGN(const std::vector<TokenId> ids, tokenizer_->Encode(text, {}));
  StreamDetokenizer stream(tokenizer_.get(), /*at_text_start=*/true);
  std::string joined;
  for (TokenId id : ids) {
    const std::string part = stream.Add(id);
    EXPECT_EQ(part.find("\xEF\xBF\xBD"), std::string::npos);
    joined += part;
  }
  joined += stream.Finish();
  EXPECT_EQ(joined, text);
}

INSTANTIATE_TEST_SUITE_P(
    All, TokenizerVectorsTest,
    ::testing::Values(Vocabulary{"llama-spm", nullptr, ""}, Vocabulary{"phi-3", nullptr, ""},
                      Vocabulary{"llama-bpe", nullptr, ""}, Vocabulary{"gpt-2", nullptr, ""},
                      Vocabulary{"qwen2", nullptr, ""}, Vocabulary{"gpt-neox", nullptr, ""},
                      Vocabulary{"smollm2", "RENGA_DEMO_MODEL", "SmolLM2-135M-Instruct.Q4_1.gguf"},
                      Vocabulary{"gemma3", "RENGA_GEMMA3_MODEL", "gemma-3-270m-q4_k_m.gguf"}),
    [](const ::testing::TestParamInfo<Vocabulary>& param) {
      std::string name = param.param.name;
      for (char& c : name) c = c == '-' ? '_' : c;
      return name;
    });

}  // namespace
}  // namespace renga::model
