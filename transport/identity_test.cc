#include "transport/identity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <string>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"

namespace renga::transport {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

std::string NewFolder() { return testing::NewTempFolder() + "/state"; }

int Mode(const std::string& path) {
  struct stat info = {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
  return static_cast<int>(info.st_mode & 0777);
}

TEST(AuthorityTest, IsKeptPrivatelyAndReadAgain) {
  const std::string folder = NewFolder();
  ASSERT_OK_AND_ASSIGN(const auto made, Authority::LoadOrCreate(folder));
  ASSERT_OK_AND_ASSIGN(const auto read, Authority::LoadOrCreate(folder));
  EXPECT_EQ(made->fingerprint(), read->fingerprint());
  EXPECT_EQ(made->token(), read->token());
  EXPECT_EQ(made->certificate_pem(), read->certificate_pem());
  EXPECT_EQ(Mode(folder), 0700);
  EXPECT_EQ(Mode(folder + "/authority.pem"), 0600);
  EXPECT_EQ(Mode(folder + "/token"), 0600);
}

TEST(AuthorityTest, DamagedFilesAreNamedAndNotReplaced) {
  const std::string folder = NewFolder();
  ASSERT_OK(Authority::LoadOrCreate(folder));
  ASSERT_OK(base::WriteFileAtomically(folder + "/authority.pem", "nonsense"));
  EXPECT_THAT(Authority::LoadOrCreate(folder),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("authority.pem")));

  const std::string other = NewFolder();
  ASSERT_OK(Authority::LoadOrCreate(other));
  ASSERT_OK(base::WriteFileAtomically(other + "/token", "short\n"));
  EXPECT_THAT(Authority::LoadOrCreate(other),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("token")));
}

TEST(AuthorityTest, TokenMatchesOnlyItself) {
  ASSERT_OK_AND_ASSIGN(const auto authority, Authority::CreateEphemeral());
  std::string token = authority->token();
  EXPECT_TRUE(authority->TokenMatches(token));
  EXPECT_FALSE(authority->TokenMatches(""));
  EXPECT_FALSE(authority->TokenMatches(token + "0"));
  token.back() = token.back() == '0' ? '1' : '0';
  EXPECT_FALSE(authority->TokenMatches(token));
}

TEST(AuthorityTest, SignsRequestsUnderTheNameItChooses) {
  ASSERT_OK_AND_ASSIGN(const auto authority, Authority::CreateEphemeral());
  ASSERT_OK_AND_ASSIGN(const KeyAndRequest key, CreateKeyAndRequest("coordinator"));
  ASSERT_OK_AND_ASSIGN(const std::string certificate,
                       authority->SignRequest(key.request_pem, "worker-7"));
  ASSERT_OK_AND_ASSIGN(const Identity identity, MakeIdentity(certificate, key.private_key_pem,
                                                             authority->certificate_pem()));
  EXPECT_EQ(identity.name, "worker-7");
}

TEST(AuthorityTest, RefusesRequestsThatAreNone) {
  ASSERT_OK_AND_ASSIGN(const auto authority, Authority::CreateEphemeral());
  ASSERT_OK_AND_ASSIGN(const KeyAndRequest key, CreateKeyAndRequest("w"));
  const auto code = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(authority->SignRequest("", "w"), StatusIs(code));
  EXPECT_THAT(authority->SignRequest("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", "w"),
              StatusIs(code));
  EXPECT_THAT(authority->SignRequest(key.private_key_pem, "w"), StatusIs(code));
  // Names reach OpenSSL's extension syntax.
  for (const char* name : {"", "UPPER", "a b", "w,IP:1.2.3.4", "-w", "w-", "a.b", "w\n"}) {
    EXPECT_THAT(authority->SignRequest(key.request_pem, name), StatusIs(code)) << name;
  }
}

TEST(AuthorityTest, RefusesARequestThatWasChanged) {
  ASSERT_OK_AND_ASSIGN(const auto authority, Authority::CreateEphemeral());
  ASSERT_OK_AND_ASSIGN(const KeyAndRequest key, CreateKeyAndRequest("w"));
  // Every character of the base64 body in turn: none of the changed requests may pass. A and g
  // differ in the highest bit, which counts in the last character too, whose lowest may be padding.
  const size_t begin = key.request_pem.find('\n') + 1;
  const size_t end = key.request_pem.rfind("\n-----END") - 2;
  for (size_t i = begin; i < end; ++i) {
    if (key.request_pem[i] == '\n') continue;
    std::string changed = key.request_pem;
    changed[i] = changed[i] == 'A' ? 'g' : 'A';
    EXPECT_THAT(authority->SignRequest(changed, "w"), StatusIs(absl::StatusCode::kInvalidArgument))
        << "character " << i;
  }
}

TEST(IdentityTest, PartsMustBelongTogether) {
  ASSERT_OK_AND_ASSIGN(const auto authority, Authority::CreateEphemeral());
  ASSERT_OK_AND_ASSIGN(const auto stranger, Authority::CreateEphemeral());
  ASSERT_OK_AND_ASSIGN(const Identity a, authority->IssueIdentity("a"));
  ASSERT_OK_AND_ASSIGN(const Identity b, authority->IssueIdentity("b"));
  EXPECT_OK(MakeIdentity(a.certificate_pem, a.private_key_pem, a.authority_pem));
  const auto denied = absl::StatusCode::kPermissionDenied;
  EXPECT_THAT(MakeIdentity(a.certificate_pem, b.private_key_pem, a.authority_pem),
              StatusIs(denied));
  EXPECT_THAT(MakeIdentity(a.certificate_pem, a.private_key_pem, stranger->certificate_pem()),
              StatusIs(denied));
  EXPECT_THAT(MakeIdentity("", a.private_key_pem, a.authority_pem),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(IdentityTest, IsSavedPrivatelyAndLoaded) {
  const std::string folder = NewFolder();
  EXPECT_THAT(LoadIdentity(folder), StatusIs(absl::StatusCode::kNotFound));
  ASSERT_OK_AND_ASSIGN(const auto authority, Authority::CreateEphemeral());
  ASSERT_OK_AND_ASSIGN(const Identity identity, authority->IssueIdentity("worker-1"));
  ASSERT_OK(SaveIdentity(folder, identity));
  ASSERT_OK_AND_ASSIGN(const Identity loaded, LoadIdentity(folder));
  EXPECT_EQ(loaded.name, "worker-1");
  EXPECT_EQ(loaded.certificate_pem, identity.certificate_pem);
  EXPECT_EQ(loaded.private_key_pem, identity.private_key_pem);
  EXPECT_EQ(loaded.authority_pem, identity.authority_pem);
  EXPECT_EQ(Mode(folder + "/identity.pem"), 0600);

  ASSERT_OK_AND_ASSIGN(std::string content, base::ReadFile(folder + "/identity.pem"));
  for (const size_t keep : {size_t{0}, size_t{100}, content.size() / 2, content.size() - 40}) {
    ASSERT_OK(base::WriteFileAtomically(folder + "/identity.pem", content.substr(0, keep)));
    EXPECT_THAT(LoadIdentity(folder), StatusIs(absl::StatusCode::kDataLoss)) << keep;
  }
}

}  // namespace
}  // namespace renga::transport
