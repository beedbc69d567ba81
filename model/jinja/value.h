// The values of the template language. They behave like the Python values that templates are
// written for, as far as templates can tell. Immutable, except namespaces.
#ifndef RENGA_MODEL_JINJA_VALUE_H_
#define RENGA_MODEL_JINJA_VALUE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/jinja/budget.h"

namespace renga::model::jinja {

struct Statement;
class Value;

// A name or attribute that isn't there. Prints as nothing; most uses of it are errors.
struct Undefined {
  std::shared_ptr<const std::string> name;
};
struct None {};
// Functions every template can call.
enum class Builtin { kRange, kNamespace, kDict, kRaiseException, kStrftimeNow };
// {% macro %}: points into the template.
struct MacroRef {
  const Statement* macro;
};
// namespace(...): the only thing that can change, so it lives with the interpreter, by number.
// That way values can't form cycles.
struct NamespaceRef {
  size_t index;
};

struct List {
  std::vector<Value> items;
  bool is_tuple = false;
  int depth = 1;  // of lists and dicts inside each other, this one counted
};

// Keys keep their order, as in Python.
struct Dict {
  std::vector<std::pair<std::string, Value>> entries;
  int depth = 1;

  // nullptr when there is none.
  const Value* Find(absl::string_view key) const;
  void Set(absl::string_view key, Value value);
};

class Value {
 public:
  Value() : data_(Undefined{}) {}
  explicit Value(bool b) : data_(b) {}
  explicit Value(const char*) = delete;  // it would be a bool
  explicit Value(int64_t i) : data_(i) {}
  explicit Value(double d) : data_(d) {}
  explicit Value(std::string text) : data_(std::make_shared<const std::string>(std::move(text))) {}
  explicit Value(Builtin builtin) : data_(builtin) {}
  explicit Value(MacroRef macro) : data_(macro) {}
  explicit Value(NamespaceRef ref) : data_(ref) {}
  static Value MakeNone();
  static Value MakeUndefined(absl::string_view name);
  // kInvalidArgument when lists are inside each other too deeply; charges the budget.
  static absl::StatusOr<Value> MakeList(std::vector<Value> items, Budget* budget,
                                        bool is_tuple = false);
  static absl::StatusOr<Value> MakeDict(Dict dict, Budget* budget);
  static absl::StatusOr<Value> MakeText(std::string text, Budget* budget);

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_integer() const { return std::holds_alternative<int64_t>(data_); }
  // A bool is a number too, as in Python.
  bool is_number() const {
    return is_integer() || as_bool() != nullptr || std::holds_alternative<double>(data_);
  }

  // nullptr when the value is something else. Valid as long as the value.
  const bool* as_bool() const { return std::get_if<bool>(&data_); }
  const double* as_float() const { return std::get_if<double>(&data_); }
  const Builtin* as_builtin() const { return std::get_if<Builtin>(&data_); }
  const MacroRef* as_macro() const { return std::get_if<MacroRef>(&data_); }
  const NamespaceRef* as_namespace() const { return std::get_if<NamespaceRef>(&data_); }
  const std::string* as_text() const { return Pointee<std::string>(); }
  const List* as_list() const { return Pointee<List>(); }
  const Dict* as_dict() const { return Pointee<Dict>(); }

  // Of an integer or a bool, else 0.
  int64_t integer() const;
  // Of any number, else 0.
  double number() const;

  bool Truthy() const;
  // As Python's messages name the type: "str", "list".
  absl::string_view TypeName() const;
  // For messages about undefined values.
  absl::string_view undefined_name() const;

 private:
  using Data = std::variant<Undefined, None, bool, int64_t, double,
                            std::shared_ptr<const std::string>, std::shared_ptr<const List>,
                            std::shared_ptr<const Dict>, Builtin, MacroRef, NamespaceRef>;
  template <typename T>
  const T* Pointee() const {
    const auto* pointer = std::get_if<std::shared_ptr<const T>>(&data_);
    return pointer == nullptr ? nullptr : pointer->get();
  }

  Data data_;
};

// Python's ==. Values of different types are just not equal.
absl::StatusOr<bool> Equal(const Value& a, const Value& b, Budget* budget);
// Python's <. kInvalidArgument for types that have no order.
absl::StatusOr<bool> Less(const Value& a, const Value& b);
// Python's `in`.
absl::StatusOr<bool> Contains(const Value& container, const Value& item, Budget* budget);
// The elements a for loop would see: of a list, the keys of a dict, the characters of a text, none
// of an undefined value. kInvalidArgument for what can't be iterated.
absl::StatusOr<std::vector<Value>> Elements(const Value& value, Budget* budget);

}  // namespace renga::model::jinja

#endif  // RENGA_MODEL_JINJA_VALUE_H_
