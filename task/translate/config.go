package translate

import (
	"cmp"
	"github.com/carousel-ml/carousel/task"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/train"
)

// Config is everything that a translation model is made from. Command-line
// flags, recipe files and Go programs fill this one struct; start from
// [Defaults]. A zero where the help says so is settled by the data when training
// begins, and [Model.Config] then tells what it became.
type Config struct {
	SourceColumn string  `json:"source_column" group:"Data" help:"column of the sentences where both languages are in one table (empty: source)"`
	TargetColumn string  `json:"target_column" group:"Data" help:"column of their translations (empty: target)"`
	Encoding     string  `json:"encoding" oneof:"(utf-8, lines that are not as latin-1),utf-8,latin-1" group:"Data" help:"bytes of the text"`
	Holdout      float64 `json:"holdout" range:"0..0.9" group:"Data" help:"share of the training pairs to validate on where no files are given for it"`

	Tokens          string `json:"tokens" oneof:"bpe,charbpe,unigram,word,space,char" group:"Text" help:"what a token is"`
	VocabularySize  int    `json:"vocabulary_size" range:"0..2e6" group:"Text" help:"most tokens to know, of both languages together or of each"`
	MinCount        int    `json:"min_count" range:"0..1e9" group:"Text" help:"tokens (of pieces of words: pairs) seen fewer times in training are not learned"`
	Separate        bool   `json:"separate" group:"Text" help:"a vocabulary for each language, not one that both share"`
	Lowercase       bool   `json:"lowercase" group:"Text" help:"make texts lower case, so that translations are"`
	Tokenizer       string `json:"tokenizer" value:"file" group:"Text" help:"file of a tokenizer to use in place of one learned here: tokenizer.json or SentencePiece's .model"`
	TargetTokenizer string `json:"target_tokenizer" value:"file" group:"Text" help:"likewise, of the target with separate"`
	MaxLength       int    `json:"max_length" range:"2..1e4" group:"Text" help:"tokens of a sentence: longer pairs are left out in training, longer sources are translated in parts"`

	Embedding int `json:"embedding" range:"1..8192" group:"Model" help:"numbers a token's vector has"`
	task.RNNConfig
	Attention    string  `json:"attention" oneof:"dot,general,additive" group:"Model" help:"how the decoder looks at the source"`
	InputFeeding bool    `json:"input_feeding" group:"Model" help:"the decoder reads what it attended to at the step before; slower, as no step can be computed ahead"`
	Bridge       string  `json:"bridge" oneof:"dense,copy,zero" group:"Model" help:"how the encoder's last state begins the decoder's"`
	Coverage     bool    `json:"coverage" group:"Model" help:"the attention knows what it has looked at already; slower, as input_feeding"`
	CoverageLoss float64 `json:"coverage_loss" range:"0..1e3" group:"Model" help:"weight of the loss on looking at the same words again; needs coverage"`
	Untied       bool    `json:"untied" group:"Model" help:"an output layer of its own, not the vectors of the target's tokens"`
	Dropout      float64 `json:"dropout" range:"0..0.99" group:"Model" help:"dropout of the tokens' vectors, of what the encoder gives and before the output"`

	WordDropout       float64 `json:"word_dropout" range:"0..0.99" group:"Training" help:"share of tokens whose vectors are left out, in training"`
	Smoothing         float64 `json:"smoothing" range:"0..0.99" group:"Training" help:"label smoothing"`
	ScheduledSampling float64 `json:"scheduled_sampling" range:"0..0.99" group:"Training" help:"share of the decoder's inputs that are its own guesses at the end of training; it rises from 0"`
	CarryState        bool    `json:"carry_state" group:"Training" help:"the encoder begins with its state after the line before, for texts whose lines follow each other"`
	BatchTokens       int     `json:"batch_tokens" range:"1..1e6" group:"Training" help:"target tokens a step"`
	WarmupSteps       int     `json:"warmup_steps" was:"warmup" range:"0..1e6" group:"Training" help:"steps over which the learning rate rises"`
	Select            string  `json:"select" oneof:"bleu,chrf,loss" group:"Training" help:"by what, on the validation pairs, the best epoch's weights are kept"`
	train.Settings

	SearchOptions
}

// UnmarshalJSON reads a configuration, that of an older model too.
func (c *Config) UnmarshalJSON(raw []byte) error {
	type fields Config
	return settings.Decode(raw, (*fields)(c))
}

// Defaults is the configuration that a user starts from.
func Defaults() Config {
	c := Config{
		Holdout: 0.03, Tokens: "bpe", VocabularySize: 8000, MinCount: 2, MaxLength: 120,
		Embedding: 256, RNNConfig: task.DefaultRNN(), Attention: "general", Bridge: "dense", Dropout: 0.3,
		Smoothing: 0.1, BatchTokens: 1500, WarmupSteps: 200, Select: "bleu", Settings: train.DefaultSettings(),
		SearchOptions: DefaultSearch(),
	}
	c.Hidden, c.Bidirectional = 512, true
	c.EMA = 0.998
	return c
}

// Validate reports the first thing wrong with a configuration, in one line; it
// is a *data.InputError.
func (c *Config) Validate() error {
	if err := cmp.Or(settings.Check(c), c.RNNConfig.Validate()); err != nil {
		return data.Setting(err)
	}
	return c.checkTogether()
}

// checkTogether finds settings that are right alone but not with each other.
func (c *Config) checkTogether() error {
	kind, _ := cell.Named(c.Cell)
	switch {
	case c.Separate && (c.Tokenizer == "") != (c.TargetTokenizer == ""):
		return data.Errorf("tokenizer and target_tokenizer: with separate give both or none")
	case !c.Separate && c.TargetTokenizer != "":
		return data.Errorf("target_tokenizer: both languages share one, unless separate is asked for")
	case c.Tokenizer != "" && c.Lowercase:
		return data.Errorf("lowercase: the tokenizer that was given decides on that; leave it out")
	case c.Bidirectional && (c.Hidden%2 != 0 || c.Proj%2 != 0):
		return data.Errorf("hidden (and proj): each direction of the encoder has half of it; want an even number, got %d (%d)", c.Hidden, c.Proj)
	case kind.Spec().Positive > 0 && c.Bridge != "zero":
		return data.Errorf("bridge: the state of an %s, with its normaliser, cannot be carried over to another one; use zero", c.Cell)
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
	c.FillDefaults(min(max(6000/max(steps, 1), 3), 40))
}

// sequential says that a step of the decoder needs the attention of the step before.
func (c *Config) sequential() bool { return c.InputFeeding || c.Coverage }

// encoder and decoder are the two stacks' settings.
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
