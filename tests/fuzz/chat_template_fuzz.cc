// Chat templates: any text as the Jinja source that a model file brings, over a conversation that
// has what templates look at.
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "model/chat_template.h"
#include "model/chat_template_defaults.h"
#include "tests/fuzz/fuzz_target.h"

namespace renga::fuzz {
namespace {

// Far above the 16 MiB that a template may make of nothing, and of a conversation as short as
// this one.
constexpr size_t kMostText = size_t{32} << 20;

void Examine(absl::string_view source) {
  const auto chat = model::ChatTemplate::FromSource(source, "<s>", "</s>");
  if (!chat.ok()) return;
  const std::vector<model::ChatMessage> messages = {
      {"system", "Be brief."},
      {"user", " What is 2 + 2?\nSay \"it\": \u6c34 \xff"},
      {"assistant", "<think>\nhm\n</think>4"},
      {"user", ""}};
  for (const auto& conversation : {messages, std::vector<model::ChatMessage>{}}) {
    const auto text = (*chat)->Render(conversation);
    if (text.ok()) Require(text->size() <= kMostText);
  }
}

}  // namespace

std::vector<std::string> Seeds() {
  std::vector<std::string> seeds = {
      "{%- set ns = namespace(found=false, n=1) -%}{% for m in messages if m.role != 'system' %}"
      "{% set ns.found = true %}{% set ns.n = ns.n * 7 // 2 - 1 %}{{ loop.index0 ~ loop.last }}"
      "{% if not loop.first and m['content'] %}{% continue %}{% endif %}"
      "{% else %}none{% endfor %}{{ ns.n if ns.found else 1.5e3 }}",
      "{% macro show(x, y=[1, 'a', none, {'k': (1, 2)}]) %}{{ x | tojson(indent=2) }}{{ y }}"
      "{% endmacro %}{{ show(messages) }}{{ show(messages[0], y=messages[1:]) }}{# no #}",
      "{{ messages | map(attribute='content') | join('-') | upper | replace('A', 'b') | trim }}"
      "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
      "{{ [3, 1, 2] | sort(reverse=true) | first }}{{ {'b': 1, 'a': 2} | items | list | last }}"
      "{{ [1, 1.0, true, 'x', none] | unique | list }}{{ 'a b' | title | indent(3, true) }}",
      "{{ messages[1].content.split('\\n')[-1].strip() }}{{ 'abc'[::-1] }}{{ 'x' * 3 + 'y' }}"
      "{{ '{} and {a}'.format(1, a=2) }}{{ 'Abc'.lower().startswith('a') }}{{ -7 % 3 ** 2 }}"
      "{{ 'a' in 'abc' and 1 < 2 <= 3 or raise_exception('no') }}{{ range(1, 9, 2) | list }}",
      // The message about it must outlive its name.
      "{% if there_is_no_such_long_name - 1 %}{% endif %}{{ there_is_no_such_function() }}",
      "{% raw %}{{ not this }}{% endraw %}{% set text %}a{{ 1 / 3 }}{% endset %}{{ text | safe }}"
      "{% set a, b = 1, 2 %}{{ dict(a=a, b=b).get('c', 'd') }}{{ a is defined and b is number }}"
      "{% generation %}x{% endgeneration %}{{ strftime_now('%Y') }}{{ bos_token + eos_token }}"
      "{% if tools is not defined %}{% set tools = none %}{% endif %}{{ tools }}"};
  for (const char* name :
       {"chatml", "llama2", "llama3", "mistral", "gemma", "phi3", "zephyr", "alpaca"}) {
    const std::optional<absl::string_view> source = model::NamedChatTemplate(name);
    Require(source.has_value());
    seeds.emplace_back(*source);
  }
  return seeds;
}

}  // namespace renga::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  renga::fuzz::Examine(absl::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
