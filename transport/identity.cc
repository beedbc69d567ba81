#include "transport/identity.h"

#include <openssl/crypto.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "transport/certificate.h"

namespace renga::transport {
namespace {

constexpr int kTokenBytes = 16;
constexpr int64_t kMaxIdentityFileBytes = 64 << 10;
constexpr int kPrivateFile = 0600;
constexpr mode_t kPrivateFolder = 0700;

absl::Status CreatePrivateFolder(const std::string& directory) {
  RENGA_RETURN_IF_ERROR(base::CreateDirectories(directory));
  if (::chmod(directory.c_str(), kPrivateFolder) != 0) {
    return base::FileError(errno, "cannot make private the folder", directory);
  }
  return absl::OkStatus();
}

std::string AuthorityPath(const std::string& directory) {
  return absl::StrCat(directory, "/authority.pem");
}
std::string TokenPath(const std::string& directory) { return absl::StrCat(directory, "/token"); }
std::string IdentityPath(const std::string& directory) {
  return absl::StrCat(directory, "/identity.pem");
}

bool IsValidToken(absl::string_view token) {
  if (token.size() != 2 * kTokenBytes) return false;
  for (const char c : token) {
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) return false;
  }
  return true;
}

class AuthorityImpl : public Authority {
 public:
  // Checks that key and certificate belong together.
  static absl::StatusOr<std::unique_ptr<AuthorityImpl>> Create(KeyPtr key,
                                                               CertificatePtr certificate,
                                                               std::string token) {
    RENGA_RETURN_IF_ERROR(CheckKeyAndSignature(certificate.get(), key.get(), certificate.get()));
    RENGA_ASSIGN_OR_RETURN(std::string pem, CertificateToPem(certificate.get()));
    RENGA_ASSIGN_OR_RETURN(std::string fingerprint, CertificateFingerprint(certificate.get()));
    auto authority = std::unique_ptr<AuthorityImpl>(new AuthorityImpl);
    authority->key_ = std::move(key);
    authority->certificate_ = std::move(certificate);
    authority->certificate_pem_ = std::move(pem);
    authority->fingerprint_ = std::move(fingerprint);
    authority->token_ = std::move(token);
    return authority;
  }

  // A new key, certificate and token.
  static absl::StatusOr<std::unique_ptr<AuthorityImpl>> Generate() {
    RENGA_ASSIGN_OR_RETURN(KeyPtr key, GenerateKey());
    RENGA_ASSIGN_OR_RETURN(CertificatePtr certificate, MakeAuthorityCertificate(key.get()));
    RENGA_ASSIGN_OR_RETURN(std::string token, RandomHex(kTokenBytes));
    return Create(std::move(key), std::move(certificate), std::move(token));
  }

  static absl::StatusOr<std::unique_ptr<AuthorityImpl>> Load(const std::string& directory) {
    RENGA_ASSIGN_OR_RETURN(const std::string pem,
                           base::ReadFile(AuthorityPath(directory), kMaxIdentityFileBytes));
    RENGA_ASSIGN_OR_RETURN(std::string token,
                           base::ReadFile(TokenPath(directory), kMaxIdentityFileBytes));
    absl::StripAsciiWhitespace(&token);
    if (!IsValidToken(token)) {
      return absl::DataLossError(absl::StrCat("not a token: ", TokenPath(directory)));
    }
    auto authority = FromPem(pem, std::move(token));
    if (!authority.ok()) {
      return absl::DataLossError(absl::StrCat(AuthorityPath(directory),
                                              " is damaged (delete the folder to make a new "
                                              "authority; workers then enrol again): ",
                                              authority.status().message()));
    }
    return authority;
  }

  // The token first: an authority without a token would be one nobody can join.
  absl::Status Save(const std::string& directory) const {
    RENGA_RETURN_IF_ERROR(CreatePrivateFolder(directory));
    RENGA_ASSIGN_OR_RETURN(const std::string key_pem, KeyToPem(key_.get()));
    RENGA_RETURN_IF_ERROR(
        base::WriteFileAtomically(TokenPath(directory), token_ + "\n", kPrivateFile));
    return base::WriteFileAtomically(AuthorityPath(directory), key_pem + certificate_pem_,
                                     kPrivateFile);
  }

  const std::string& certificate_pem() const override { return certificate_pem_; }
  const std::string& fingerprint() const override { return fingerprint_; }
  const std::string& token() const override { return token_; }

  bool TokenMatches(absl::string_view token) const override {
    return token.size() == token_.size() &&
           CRYPTO_memcmp(token.data(), token_.data(), token_.size()) == 0;
  }

  absl::StatusOr<Identity> IssueIdentity(absl::string_view name) const override {
    RENGA_ASSIGN_OR_RETURN(const KeyPtr key, GenerateKey());
    RENGA_ASSIGN_OR_RETURN(const CertificatePtr certificate,
                           MakeLeafCertificate(name, key.get(), certificate_.get(), key_.get()));
    Identity identity;
    identity.name = std::string(name);
    identity.authority_pem = certificate_pem_;
    RENGA_ASSIGN_OR_RETURN(identity.certificate_pem, CertificateToPem(certificate.get()));
    RENGA_ASSIGN_OR_RETURN(identity.private_key_pem, KeyToPem(key.get()));
    return identity;
  }

  absl::StatusOr<std::string> SignRequest(const std::string& request_pem,
                                          absl::string_view name) const override {
    RENGA_ASSIGN_OR_RETURN(const RequestPtr request, ParseRequest(request_pem));
    EVP_PKEY* public_key = X509_REQ_get0_pubkey(request.get());
    if (public_key == nullptr || X509_REQ_verify(request.get(), public_key) != 1) {
      return absl::InvalidArgumentError("the certificate request is not signed by its own key");
    }
    RENGA_ASSIGN_OR_RETURN(const CertificatePtr certificate,
                           MakeLeafCertificate(name, public_key, certificate_.get(), key_.get()));
    return CertificateToPem(certificate.get());
  }

 private:
  AuthorityImpl() = default;

  static absl::StatusOr<std::unique_ptr<AuthorityImpl>> FromPem(const std::string& pem,
                                                                std::string token) {
    RENGA_ASSIGN_OR_RETURN(KeyPtr key, ParseKey(pem));
    RENGA_ASSIGN_OR_RETURN(CertificatePtr certificate, ParseCertificate(pem));
    return Create(std::move(key), std::move(certificate), std::move(token));
  }

  // OpenSSL's reads and signatures count references inside; they are safe from several threads.
  KeyPtr key_;
  CertificatePtr certificate_;
  std::string certificate_pem_;
  std::string fingerprint_;
  std::string token_;
};

}  // namespace

bool IsValidPeerName(absl::string_view name) {
  if (name.empty() || name.size() > 63 || name.front() == '-' || name.back() == '-') return false;
  for (const char c : name) {
    if (!absl::ascii_islower(static_cast<unsigned char>(c)) &&
        !absl::ascii_isdigit(static_cast<unsigned char>(c)) && c != '-') {
      return false;
    }
  }
  return true;
}

absl::StatusOr<std::unique_ptr<Authority>> Authority::LoadOrCreate(const std::string& directory) {
  auto loaded = AuthorityImpl::Load(directory);
  if (loaded.ok()) return std::unique_ptr<Authority>(std::move(*loaded));
  if (!absl::IsNotFound(loaded.status())) return loaded.status();
  RENGA_ASSIGN_OR_RETURN(auto authority, AuthorityImpl::Generate());
  RENGA_RETURN_IF_ERROR(authority->Save(directory));
  return std::unique_ptr<Authority>(std::move(authority));
}

absl::StatusOr<std::unique_ptr<Authority>> Authority::CreateEphemeral() {
  RENGA_ASSIGN_OR_RETURN(auto authority, AuthorityImpl::Generate());
  return std::unique_ptr<Authority>(std::move(authority));
}

absl::StatusOr<KeyAndRequest> CreateKeyAndRequest(absl::string_view name) {
  RENGA_ASSIGN_OR_RETURN(const KeyPtr key, GenerateKey());
  RENGA_ASSIGN_OR_RETURN(const RequestPtr request, MakeRequest(name, key.get()));
  KeyAndRequest result;
  RENGA_ASSIGN_OR_RETURN(result.private_key_pem, KeyToPem(key.get()));
  RENGA_ASSIGN_OR_RETURN(result.request_pem, RequestToPem(request.get()));
  return result;
}

absl::StatusOr<Identity> MakeIdentity(const std::string& certificate_pem,
                                      const std::string& private_key_pem,
                                      const std::string& authority_pem) {
  RENGA_ASSIGN_OR_RETURN(const CertificatePtr certificate, ParseCertificate(certificate_pem));
  RENGA_ASSIGN_OR_RETURN(const KeyPtr key, ParseKey(private_key_pem));
  RENGA_ASSIGN_OR_RETURN(const CertificatePtr authority, ParseCertificate(authority_pem));
  RENGA_RETURN_IF_ERROR(CheckKeyAndSignature(certificate.get(), key.get(), authority.get()));
  Identity identity;
  RENGA_ASSIGN_OR_RETURN(identity.name, CertificateName(certificate.get()));
  // Written anew: whatever else a peer put around its certificate is left behind.
  RENGA_ASSIGN_OR_RETURN(identity.certificate_pem, CertificateToPem(certificate.get()));
  RENGA_ASSIGN_OR_RETURN(identity.private_key_pem, KeyToPem(key.get()));
  RENGA_ASSIGN_OR_RETURN(identity.authority_pem, CertificateToPem(authority.get()));
  return identity;
}

absl::Status SaveIdentity(const std::string& directory, const Identity& identity) {
  RENGA_RETURN_IF_ERROR(CreatePrivateFolder(directory));
  return base::WriteFileAtomically(
      IdentityPath(directory),
      absl::StrCat(identity.private_key_pem, identity.certificate_pem, identity.authority_pem),
      kPrivateFile);
}

absl::StatusOr<Identity> LoadIdentity(const std::string& directory) {
  RENGA_ASSIGN_OR_RETURN(const std::string pem,
                         base::ReadFile(IdentityPath(directory), kMaxIdentityFileBytes));
  // The file holds the process's own certificate first, then the authority's.
  static constexpr absl::string_view kEnd = "-----END CERTIFICATE-----\n";
  const size_t first_end = pem.find(std::string(kEnd));
  if (first_end == std::string::npos) {
    return absl::DataLossError(absl::StrCat("no certificate in ", IdentityPath(directory)));
  }
  const size_t split = first_end + kEnd.size();
  auto identity = MakeIdentity(pem.substr(0, split), pem.substr(0, split), pem.substr(split));
  if (!identity.ok()) {
    return absl::DataLossError(
        absl::StrCat(IdentityPath(directory),
                     " is damaged (delete it to enrol again): ", identity.status().message()));
  }
  return identity;
}

}  // namespace renga::transport
