package translate

import (
	"cmp"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/train"
)

// Config is the settings of a translation model. Command-line flags, recipe files
// and Go programs fill this one struct; start from [Defaults]. A zero is replaced
// when training begins, where the help says so, by a value that depends on the
// data; [Model.Config] returns the value chosen.
type Config struct {
	Source   string  `json:"source" was:"source_column" group:"Data" help:"column of the source sentences if both languages are in one table (empty: source)"`
	Target   string  `json:"target" was:"target_column" group:"Data" help:"column of the translations (empty: target)"`
	Encoding string  `json:"encoding" oneof:"(utf-8, but latin-1 for lines that are not valid),utf-8,latin-1" group:"Data" help:"encoding of the files"`
	Holdout  float64 `json:"holdout" range:"0..0.9" group:"Data" help:"share of the training pairs drawn for validation if there are no validation files"`

	Tokens          string   `json:"tokens" oneof:"bpe,charbpe,unigram,word,space,char" group:"Text" help:"kind of token"`
	Segmenter       []string `json:"segmenter" value:"file" group:"Text" help:"models for words in Thai, Lao, Khmer and Burmese, weights.json of lstm_word_segmentation; needs tokens word (empty: these scripts by character)"`
	VocabularySize  int      `json:"vocabulary_size" range:"0..2e6" group:"Text" help:"largest size of the vocabulary, shared or (with separate) of each language (0: by the kind of token)"`
	MinCount        int      `json:"min_count" range:"0..1e9" group:"Text" help:"tokens with fewer occurrences in training are unknown; for bpe and charbpe, pairs with fewer are not merged (0: 1)"`
	Separate        bool     `json:"separate" group:"Text" help:"a vocabulary per language instead of a shared one"`
	Case            string   `json:"case" was:"lowercase true=lower false=keep" oneof:"keep,lower" group:"Text" help:"conversion of the texts' letters, and so of the translations'"`
	Tokenizer       string   `json:"tokenizer" value:"file" group:"Text" help:"file of a tokenizer (tokenizer.json or SentencePiece's .model) to use instead of a trained one"`
	TargetTokenizer string   `json:"target_tokenizer" value:"file" group:"Text" help:"file of the tokenizer of the target; with separate only"`
	MaxLength       int      `json:"max_length" range:"2..1e4" group:"Text" help:"most tokens of a sentence: longer pairs are left out of training, longer sources are translated in parts"`

	Embedding int `json:"embedding" range:"1..8192" group:"Model" help:"size of a token's vector"`
	task.RNNConfig
	Attention    string  `json:"attention" oneof:"dot,general,additive" group:"Model" help:"kind of attention"`
	InputFeeding bool    `json:"input_feeding" group:"Model" help:"the decoder also reads the attention output of the step before; slower, as steps are computed one by one"`
	Bridge       string  `json:"bridge" oneof:"dense,copy,zero" group:"Model" help:"how the decoder's first state is made from the encoder's last"`
	Coverage     bool    `json:"coverage" group:"Model" help:"the attention also depends on the sum of its weights so far; slower, like input_feeding"`
	CoverageLoss float64 `json:"coverage_loss" range:"0..1e3" group:"Model" help:"weight of the loss on repeated attention; needs coverage"`
	Output       string  `json:"output" was:"untied true=free false=tied" oneof:"tied (shared with the tokens' vectors),free" group:"Model" help:"weights of the output layer"`
	Dropout      float64 `json:"dropout" range:"0..0.99" group:"Model" help:"dropout of the tokens' vectors, of the encoder's output and before the output layer"`

	TokenDropout      float64 `json:"token_dropout" was:"word_dropout" range:"0..0.99" group:"Training" help:"share of tokens whose vectors are zeroed in training"`
	Smoothing         float64 `json:"smoothing" range:"0..0.99" group:"Training" help:"label smoothing"`
	ScheduledSampling float64 `json:"scheduled_sampling" range:"0..0.99" group:"Training" help:"share of the decoder's inputs that are its own predictions at the end of training; rises from 0"`
	CarryState        bool    `json:"carry_state" group:"Training" help:"the encoder begins with its state after the line before, for texts with consecutive lines"`
	BatchTokens       int     `json:"batch_tokens" range:"0..1e6" group:"Training" help:"target tokens per step (0: 150 to 1500, by the size of the corpus)"`
	Select            string  `json:"select" oneof:"bleu,chrf,loss" group:"Training" help:"score of the validation pairs by which the epoch is chosen"`
	BLEUTokenizer     string  `json:"bleu_tokenizer" oneof:"(zh for Chinese, char for Japanese, Thai and others without spaces, else 13a),13a,intl,zh,char,none" group:"Training" help:"sacreBLEU's tokenizer for BLEU, by which also the epoch is chosen"`
	train.Settings

	SearchOptions
}

// UnmarshalJSON decodes a configuration, also one of an older version. Its errors
// are those of settings.Decode: unknown names and values of the wrong type.
func (c *Config) UnmarshalJSON(raw []byte) error {
	type fields Config
	err := settings.Decode(raw, (*fields)(c))
	if c.Warmup >= 1 {
		c.Warmup = defaultWarmup // older versions have a number of steps
	}
	return err
}

// defaultWarmup is the share of the planned steps over which the learning rate
// rises: 180 of the 6,000 of a small corpus.
const defaultWarmup = 0.03

// Defaults returns the configuration to start from.
func Defaults() Config {
	c := Config{
		Holdout: 0.03, Tokens: "bpe", VocabularySize: 8000, MinCount: 2, Case: "keep", MaxLength: 120,
		Embedding: 256, RNNConfig: task.DefaultRNN(), Attention: "general", Bridge: "dense", Output: "tied", Dropout: 0.3,
		Smoothing: 0.1, Select: "bleu", Settings: train.DefaultSettings(),
		SearchOptions: DefaultSearch(),
	}
	c.Hidden, c.Bidirectional = 512, true
	c.EMA, c.Warmup = 0.998, defaultWarmup
	return c
}

// Validate returns the first invalid setting as a *data.InputError of one line,
// or nil.
func (c *Config) Validate() error {
	if err := cmp.Or(settings.Check(c), c.RNNConfig.Validate(), c.Settings.Validate()); err != nil {
		return data.Setting(err)
	}
	return c.checkTogether()
}

// checkTogether returns an error for settings that exclude each other.
func (c *Config) checkTogether() error {
	kind, _ := cell.Named(c.Cell)
	switch {
	case c.Separate && (c.Tokenizer == "") != (c.TargetTokenizer == ""):
		return data.Errorf("tokenizer and target_tokenizer: with separate give both or none")
	case !c.Separate && c.TargetTokenizer != "":
		return data.Errorf("target_tokenizer: needs separate")
	case c.Tokenizer != "" && c.Case != "keep":
		return data.Errorf("case: only keep is supported with a given tokenizer; leave it out")
	case len(c.Segmenter) > 0 && (c.Tokens != "word" || c.Tokenizer != ""):
		return data.Errorf("segmenter: finds words; needs tokens word, and no tokenizer")
	case c.Bidirectional && (c.Hidden%2 != 0 || c.Proj%2 != 0):
		return data.Errorf("hidden (and proj): each direction of the encoder has half of it; want an even number, got %d (%d)", c.Hidden, c.Proj)
	case kind.Spec().Positive > 0 && c.Bridge != "zero":
		return data.Errorf("bridge: the state of an %s, with its normaliser, cannot be carried over to another one; use zero", c.Cell)
	case c.CoverageLoss > 0 && !c.Coverage:
		return data.Errorf("coverage_loss: needs coverage")
	case c.MinLR > c.LR:
		return data.Errorf("min_lr: want at most lr (%v), got %v", c.LR, c.MinLR)
	}
	return nil
}

// settle sets the values that depend on the number of training tokens.
func (c *Config) settle(tokens int) {
	if c.BatchTokens == 0 {
		c.BatchTokens = min(max(tokens/16, 150), 1500)
	}
	// About 6,000 steps are enough for a small corpus, and 1,000 are needed even for
	// a tiny one; a large one needs few passes.
	steps := max((tokens+c.BatchTokens-1)/c.BatchTokens, 1)
	c.FillDefaults(max(min(6000/steps, 40), 1000/steps, 3))
}

// sequential reports whether a step of the decoder needs the attention of the
// step before.
func (c *Config) sequential() bool { return c.InputFeeding || c.Coverage }

// encoder and decoder return the settings of the two stacks.
func (c *Config) encoder() task.RNNConfig {
	e := c.RNNConfig
	if e.Bidirectional {
		e.Hidden, e.Proj = e.Hidden/2, e.Proj/2
	}
	return e
}

func (c *Config) decoder() task.RNNConfig {
	d := c.RNNConfig
	d.Bidirectional, d.LearnState = false, d.LearnState && c.Bridge == "zero"
	return d
}
