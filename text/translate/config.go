package translate

import (
	"cmp"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/text"
	"github.com/carousel-ml/carousel/train"
)

// Config is everything that a translation model is made from. Command-line
// flags, recipe files and Go programs fill this one struct; start from
// [Defaults]. A zero where the help says so is settled by the data when training
// begins, and [Model.Config] then tells what it became.
type Config struct {
	SourceColumn string  `json:"source_column" group:"Data" help:"column of the sentences where both languages are in one table (empty: source)"`
	TargetColumn string  `json:"target_column" group:"Data" help:"column of their translations (empty: target)"`
	Encoding     string  `json:"encoding" group:"Data" help:"utf-8 or latin-1 (empty: utf-8, lines that are not as latin-1)"`
	Holdout      float64 `json:"holdout" default:"0.03" group:"Data" help:"share of the training pairs to validate on where no files are given for it"`

	Tokens          string `json:"tokens" default:"bpe" group:"Text" help:"bpe, charbpe, unigram, word, space or char"`
	VocabularySize  int    `json:"vocabulary_size" default:"8000" group:"Text" help:"most tokens to know, of both languages together or of each"`
	MinCount        int    `json:"min_count" default:"2" group:"Text" help:"tokens (bpe: pairs) seen fewer times in training are not learned"`
	Separate        bool   `json:"separate" group:"Text" help:"a vocabulary for each language, not one that both share"`
	Lowercase       bool   `json:"lowercase" group:"Text" help:"make texts lower case, so that translations are"`
	Tokenizer       string `json:"tokenizer" group:"Text" help:"file of a tokenizer to use in place of one learned here: tokenizer.json or SentencePiece's .model"`
	TargetTokenizer string `json:"target_tokenizer" group:"Text" help:"likewise, of the target with separate"`
	MaxLength       int    `json:"max_length" default:"120" group:"Text" help:"tokens of a sentence: longer pairs are left out in training, longer sources are translated in parts"`

	Embedding int `json:"embedding" default:"256" group:"Model" help:"numbers a token's vector has"`
	nn.RNNConfig
	Attention    string  `json:"attention" default:"general" group:"Model" help:"how the decoder looks at the source: dot, general or additive"`
	InputFeeding bool    `json:"input_feeding" group:"Model" help:"the decoder reads what it attended to at the step before; slower, as no step can be computed ahead"`
	Bridge       string  `json:"bridge" default:"dense" group:"Model" help:"how the encoder's last state begins the decoder's: dense, copy or zero"`
	Coverage     bool    `json:"coverage" group:"Model" help:"the attention knows what it has looked at already; slower, as input_feeding"`
	CoverageLoss float64 `json:"coverage_loss" group:"Model" help:"weight of the loss on looking at the same words again; needs coverage"`
	Untied       bool    `json:"untied" group:"Model" help:"an output layer of its own, not the vectors of the target's tokens"`
	Dropout      float64 `json:"dropout" default:"0.3" group:"Model" help:"dropout of the tokens' vectors, of what the encoder gives and before the output"`

	WordDropout       float64 `json:"word_dropout" group:"Training" help:"share of tokens whose vectors are left out, in training"`
	Smoothing         float64 `json:"smoothing" default:"0.1" group:"Training" help:"label smoothing"`
	ScheduledSampling float64 `json:"scheduled_sampling" group:"Training" help:"share of the decoder's inputs that are its own guesses at the end of training; it rises from 0"`
	CarryState        bool    `json:"carry_state" group:"Training" help:"the encoder begins with its state after the line before, for texts whose lines follow each other"`
	BatchTokens       int     `json:"batch_tokens" default:"1500" group:"Training" help:"target tokens a step"`
	Warmup            int     `json:"warmup" default:"200" group:"Training" help:"steps over which the learning rate rises"`
	Select            string  `json:"select" default:"bleu" group:"Training" help:"which epoch's weights are kept: the best by bleu, chrf or loss on the validation pairs"`
	train.Settings

	SearchOptions
}

// Defaults is the configuration that a user starts from.
func Defaults() Config {
	c := Config{
		Holdout: 0.03, Tokens: "bpe", VocabularySize: 8000, MinCount: 2, MaxLength: 120,
		Embedding: 256, RNNConfig: nn.DefaultRNN(), Attention: "general", Bridge: "dense", Dropout: 0.3,
		Smoothing: 0.1, BatchTokens: 1500, Warmup: 200, Select: "bleu", Settings: train.DefaultSettings(),
		SearchOptions: DefaultSearch(),
	}
	c.Hidden, c.Bidirectional = 512, true
	c.EMA = 0.998
	return c
}

// choices of the fields that take a word.
var (
	attentions = []string{"dot", "general", "additive"}
	bridges    = []string{"dense", "copy", "zero"}
	selects    = []string{"bleu", "chrf", "loss"}
)

// Validate reports the first thing wrong with a configuration, in one line; it
// is a *data.InputError.
func (c *Config) Validate() error {
	if err := cmp.Or(
		data.OneOf("tokens", c.Tokens, text.Kinds()), data.OneOf("attention", c.Attention, attentions),
		data.OneOf("bridge", c.Bridge, bridges), data.OneOf("select", c.Select, selects), data.Between("holdout", c.Holdout, 0, 0.9),
		data.Between("vocabulary_size", c.VocabularySize, 0, 2e6), data.Between("min_count", c.MinCount, 0, 1e9),
		data.Between("max_length", c.MaxLength, 2, 1e4), data.Between("embedding", c.Embedding, 1, 8192),
		data.Between("coverage_loss", c.CoverageLoss, 0, 1e3), data.Between("dropout", c.Dropout, 0, 0.99),
		data.Between("smoothing", c.Smoothing, 0, 0.99), data.Between("word_dropout", c.WordDropout, 0, 0.99),
		data.Between("scheduled_sampling", c.ScheduledSampling, 0, 0.99), data.Between("batch_tokens", c.BatchTokens, 1, 1e6),
		data.Between("warmup", c.Warmup, 0, 1e6), data.Setting(c.RNNConfig.Validate()), data.Setting(c.Settings.Validate()),
		c.SearchOptions.Validate(),
	); err != nil {
		return err
	}
	return c.checkTogether()
}

// checkTogether finds settings that are right alone but not with each other.
func (c *Config) checkTogether() error {
	switch {
	case c.Separate && (c.Tokenizer == "") != (c.TargetTokenizer == ""):
		return data.Errorf("tokenizer and target_tokenizer: with separate give both or none")
	case !c.Separate && c.TargetTokenizer != "":
		return data.Errorf("target_tokenizer: both languages share one, unless separate is asked for")
	case c.Tokenizer != "" && c.Lowercase:
		return data.Errorf("lowercase: the tokenizer that was given decides on that; leave it out")
	case c.Bidirectional && (c.Hidden%2 != 0 || c.Proj%2 != 0):
		return data.Errorf("hidden (and proj): each direction of the encoder has half of it; want an even number, got %d (%d)", c.Hidden, c.Proj)
	case c.Cell == "slstm" && c.Bridge != "zero":
		return data.Errorf("bridge: the state of an slstm, with its normaliser, cannot be carried over to another one; use zero")
	case c.CoverageLoss > 0 && !c.Coverage:
		return data.Errorf("coverage_loss: acts on coverage, which is not asked for")
	case c.MinLR > c.LR:
		return data.Errorf("min_lr: want at most lr (%v), got %v", c.LR, c.MinLR)
	}
	return nil
}

// settle fills in what depends on the number of training tokens.
func (c *Config) settle(tokens int) {
	// About 6,000 steps teach a small corpus; a large one needs few passes.
	steps := (tokens + c.BatchTokens - 1) / c.BatchTokens
	c.Settle(min(max(6000/max(steps, 1), 3), 40))
}

// sequential says that a step of the decoder needs the attention of the step before.
func (c *Config) sequential() bool { return c.InputFeeding || c.Coverage }

// encoder and decoder are the two stacks' settings.
func (c *Config) encoder() nn.RNNConfig {
	e := c.RNNConfig
	if e.Bidirectional {
		e.Hidden, e.Proj = e.Hidden/2, e.Proj/2
	}
	return e
}

func (c *Config) decoder() nn.RNNConfig {
	d := c.RNNConfig
	d.Bidirectional, d.LearnState = false, d.LearnState && c.Bridge == "zero"
	return d
}
