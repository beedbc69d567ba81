#include "transport/certificate.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <cstdint>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "transport/identity.h"

namespace renga::transport {
namespace {

struct PartDeleter {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(BIGNUM* number) const { BN_free(number); }
  void operator()(X509_EXTENSION* extension) const { X509_EXTENSION_free(extension); }
  void operator()(GENERAL_NAMES* names) const { GENERAL_NAMES_free(names); }
};
using BioPtr = std::unique_ptr<BIO, PartDeleter>;

constexpr char kAuthorityCommonName[] = "renga authority";
constexpr char kNotBefore[] = "20000101000000Z";
constexpr char kNotAfter[] = "99991231235959Z";
constexpr long kX509Version3 = 2;
constexpr int kSerialBits = 159;  // RFC 5280: positive, at most 20 bytes

// OpenSSL would ask on the terminal otherwise.
int RefusePassword(char*, int, int, void*) { return 0; }

BioPtr ReadOnlyBio(absl::string_view text) {
  return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

absl::StatusOr<std::string> BioText(BIO* bio, bool written, absl::string_view what) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  if (!written || size <= 0) return OpenSslError(absl::StrCat("cannot encode the ", what));
  return std::string(data, static_cast<size_t>(size));
}

bool SetCommonName(X509_NAME* subject, absl::string_view name) {
  return X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                    reinterpret_cast<const unsigned char*>(name.data()),
                                    static_cast<int>(name.size()), -1, 0) == 1;
}

bool SetRandomSerial(X509* certificate) {
  std::unique_ptr<BIGNUM, PartDeleter> number(BN_new());
  return number != nullptr &&
         BN_rand(number.get(), kSerialBits, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
         BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

bool AddExtension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509V3_set_ctx_nodb(&context);
  std::unique_ptr<X509_EXTENSION, PartDeleter> extension(
      X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  return extension != nullptr && X509_add_ext(certificate, extension.get(), -1) == 1;
}

// Everything but extensions and signature.
absl::StatusOr<CertificatePtr> NewCertificate(absl::string_view name, EVP_PKEY* public_key) {
  CertificatePtr certificate(X509_new());
  if (certificate == nullptr || X509_set_version(certificate.get(), kX509Version3) != 1 ||
      !SetRandomSerial(certificate.get()) ||
      ASN1_TIME_set_string_X509(X509_getm_notBefore(certificate.get()), kNotBefore) != 1 ||
      ASN1_TIME_set_string_X509(X509_getm_notAfter(certificate.get()), kNotAfter) != 1 ||
      !SetCommonName(X509_get_subject_name(certificate.get()), name) ||
      X509_set_pubkey(certificate.get(), public_key) != 1) {
    return OpenSslError("cannot make a certificate");
  }
  return certificate;
}

}  // namespace

absl::Status OpenSslError(absl::string_view what) {
  char text[256] = "no details";
  if (const unsigned long code = ERR_peek_last_error(); code != 0) {
    ERR_error_string_n(code, text, sizeof(text));
  }
  ERR_clear_error();
  return absl::InternalError(absl::StrCat(what, ": ", text));
}

absl::StatusOr<std::string> RandomHex(int bytes) {
  std::string raw(static_cast<size_t>(bytes), '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(raw.data()), bytes) != 1) {
    return OpenSslError("no random numbers");
  }
  return absl::BytesToHexString(raw);
}

absl::StatusOr<KeyPtr> GenerateKey() {
  KeyPtr key(EVP_EC_gen("P-256"));
  if (key == nullptr) return OpenSslError("cannot make a key");
  return key;
}

absl::StatusOr<CertificatePtr> MakeAuthorityCertificate(EVP_PKEY* key) {
  RENGA_ASSIGN_OR_RETURN(CertificatePtr certificate, NewCertificate(kAuthorityCommonName, key));
  X509* raw = certificate.get();
  if (X509_set_issuer_name(raw, X509_get_subject_name(raw)) != 1 ||
      !AddExtension(raw, raw, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
      !AddExtension(raw, raw, NID_key_usage, "critical,keyCertSign,cRLSign") ||
      !AddExtension(raw, raw, NID_subject_key_identifier, "hash") ||
      X509_sign(raw, key, EVP_sha256()) == 0) {
    return OpenSslError("cannot make the authority's certificate");
  }
  return certificate;
}

absl::StatusOr<CertificatePtr> MakeLeafCertificate(absl::string_view name, EVP_PKEY* public_key,
                                                   X509* authority, EVP_PKEY* authority_key) {
  // Also keeps the name from meaning anything in OpenSSL's extension syntax below.
  if (!IsValidPeerName(name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a certificate's name has lower-case letters, digits and '-': \"",
                     absl::CHexEscape(name.substr(0, 80)), "\""));
  }
  RENGA_ASSIGN_OR_RETURN(CertificatePtr certificate, NewCertificate(name, public_key));
  X509* raw = certificate.get();
  if (X509_set_issuer_name(raw, X509_get_subject_name(authority)) != 1 ||
      !AddExtension(raw, authority, NID_basic_constraints, "critical,CA:FALSE") ||
      !AddExtension(raw, authority, NID_key_usage, "critical,digitalSignature") ||
      !AddExtension(raw, authority, NID_ext_key_usage, "serverAuth,clientAuth") ||
      !AddExtension(raw, authority, NID_subject_alt_name, absl::StrCat("DNS:", name)) ||
      !AddExtension(raw, authority, NID_authority_key_identifier, "keyid:always") ||
      X509_sign(raw, authority_key, EVP_sha256()) == 0) {
    return OpenSslError("cannot sign a certificate");
  }
  return certificate;
}

absl::StatusOr<RequestPtr> MakeRequest(absl::string_view name, EVP_PKEY* key) {
  RequestPtr request(X509_REQ_new());
  if (request == nullptr || X509_REQ_set_version(request.get(), 0) != 1 ||
      !SetCommonName(X509_REQ_get_subject_name(request.get()), name) ||
      X509_REQ_set_pubkey(request.get(), key) != 1 ||
      X509_REQ_sign(request.get(), key, EVP_sha256()) == 0) {
    return OpenSslError("cannot make a certificate request");
  }
  return request;
}

absl::StatusOr<KeyPtr> ParseKey(absl::string_view pem) {
  KeyPtr key(PEM_read_bio_PrivateKey(ReadOnlyBio(pem).get(), nullptr, RefusePassword, nullptr));
  if (key != nullptr) return key;
  ERR_clear_error();
  return absl::InvalidArgumentError("not a private key in PEM");
}

absl::StatusOr<CertificatePtr> ParseCertificate(absl::string_view pem) {
  CertificatePtr certificate(
      PEM_read_bio_X509(ReadOnlyBio(pem).get(), nullptr, RefusePassword, nullptr));
  if (certificate != nullptr) return certificate;
  ERR_clear_error();
  return absl::InvalidArgumentError("not a certificate in PEM");
}

absl::StatusOr<RequestPtr> ParseRequest(absl::string_view pem) {
  RequestPtr request(
      PEM_read_bio_X509_REQ(ReadOnlyBio(pem).get(), nullptr, RefusePassword, nullptr));
  if (request != nullptr) return request;
  ERR_clear_error();
  return absl::InvalidArgumentError("not a certificate request in PEM");
}

absl::StatusOr<std::string> KeyToPem(EVP_PKEY* key) {
  BioPtr bio(BIO_new(BIO_s_mem()));
  const bool written =
      PEM_write_bio_PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1;
  return BioText(bio.get(), written, "key");
}

absl::StatusOr<std::string> CertificateToPem(X509* certificate) {
  BioPtr bio(BIO_new(BIO_s_mem()));
  return BioText(bio.get(), PEM_write_bio_X509(bio.get(), certificate) == 1, "certificate");
}

absl::StatusOr<std::string> RequestToPem(X509_REQ* request) {
  BioPtr bio(BIO_new(BIO_s_mem()));
  return BioText(bio.get(), PEM_write_bio_X509_REQ(bio.get(), request) == 1, "request");
}

absl::StatusOr<std::string> CertificateFingerprint(X509* certificate) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (X509_digest(certificate, EVP_sha256(), digest, &size) != 1) {
    return OpenSslError("cannot hash a certificate");
  }
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), size));
}

absl::StatusOr<std::string> CertificateName(X509* certificate) {
  std::unique_ptr<GENERAL_NAMES, PartDeleter> names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  if (names != nullptr && sk_GENERAL_NAME_num(names.get()) == 1) {
    const GENERAL_NAME* entry = sk_GENERAL_NAME_value(names.get(), 0);
    if (entry->type == GEN_DNS) {
      const ASN1_IA5STRING* text = entry->d.dNSName;
      std::string name(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                       static_cast<size_t>(ASN1_STRING_length(text)));
      if (IsValidPeerName(name)) return name;
    }
  }
  ERR_clear_error();
  return absl::InvalidArgumentError("the certificate names no member of a cluster");
}

absl::Status CheckKeyAndSignature(X509* certificate, EVP_PKEY* key, X509* authority) {
  if (X509_check_private_key(certificate, key) != 1) {
    ERR_clear_error();
    return absl::PermissionDeniedError("the certificate belongs to another key");
  }
  if (X509_verify(certificate, X509_get0_pubkey(authority)) != 1) {
    ERR_clear_error();
    return absl::PermissionDeniedError("the certificate is not signed by the cluster's authority");
  }
  return absl::OkStatus();
}

}  // namespace renga::transport
