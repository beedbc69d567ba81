#include "model/chat_template_defaults.h"

#include <algorithm>

namespace renga::model {
namespace {

constexpr absl::string_view kChatMl = R"({%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- endif -%})";

constexpr absl::string_view kLlama2 = R"({%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{%- set ns.system = '<<SYS>>\n' + message.content + '\n<</SYS>>\n\n' -%}
{%- elif message.role == 'user' -%}
{{ bos_token + '[INST] ' + ns.system + message.content.strip() + ' [/INST]' }}
{%- set ns.system = '' -%}
{%- else -%}
{{ ' ' + message.content.strip() + ' ' + eos_token }}
{%- endif -%}
{%- endfor -%})";

constexpr absl::string_view kLlama3 = R"({{- bos_token -}}
{%- for message in messages -%}
{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}
{{- message.content | trim + '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif -%})";

constexpr absl::string_view kMistral = R"({{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{%- set ns.system = message.content + '\n\n' -%}
{%- elif message.role == 'user' -%}
{{ '[INST] ' + ns.system + message.content + ' [/INST]' }}
{%- set ns.system = '' -%}
{%- else -%}
{{ ' ' + message.content.strip() + eos_token }}
{%- endif -%}
{%- endfor -%})";

constexpr absl::string_view kGemma = R"({{- bos_token -}}
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{%- set ns.system = message.content.strip() + '\n\n' -%}
{%- else -%}
{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' }}
{{- ns.system + message.content.strip() + '<end_of_turn>\n' }}
{%- set ns.system = '' -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<start_of_turn>model\n' }}
{%- endif -%})";

constexpr absl::string_view kPhi3 = R"({%- for message in messages -%}
{{ '<|' + message.role + '|>\n' + message.content + '<|end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|assistant|>\n' }}
{%- endif -%})";

constexpr absl::string_view kZephyr = R"({%- for message in messages -%}
{{ '<|' + message.role + '|>\n' + message.content + eos_token + '\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|assistant|>\n' }}
{%- endif -%})";

constexpr absl::string_view kAlpaca = R"({%- for message in messages -%}
{%- if message.role == 'system' -%}
{{ message.content + '\n\n' }}
{%- elif message.role == 'user' -%}
{{ '### Instruction:\n' + message.content + '\n\n' }}
{%- else -%}
{{ '### Response:\n' + message.content + '\n\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '### Response:\n' }}
{%- endif -%})";

struct NamedTemplate {
  absl::string_view name;
  absl::string_view source;
  absl::string_view token;  // a token only such vocabularies have; empty where there is none
};

constexpr NamedTemplate kTemplates[] = {
    {"chatml", kChatMl, "<|im_start|>"},
    {"llama3", kLlama3, "<|start_header_id|>"},
    {"gemma", kGemma, "<start_of_turn>"},
    {"phi3", kPhi3, "<|end|>"},
    {"llama2", kLlama2, ""},
    {"mistral", kMistral, "[INST]"},
    {"zephyr", kZephyr, ""},
    {"alpaca", kAlpaca, ""},
};

}  // namespace

std::optional<absl::string_view> NamedChatTemplate(absl::string_view name) {
  for (const NamedTemplate& row : kTemplates) {
    if (row.name == name) return row.source;
  }
  return std::nullopt;
}

absl::string_view GuessChatTemplate(const std::vector<std::string>& tokens) {
  for (const NamedTemplate& row : kTemplates) {
    if (!row.token.empty() && std::any_of(tokens.begin(), tokens.end(),
                                          [&](const auto& token) { return token == row.token; })) {
      return row.source;
    }
  }
  return kChatMl;
}

}  // namespace renga::model
