package classify

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/train"
)

// Config is everything that a classifier is made from. Command-line flags,
// recipe files and Go programs fill this one struct; start from [Defaults]. A
// zero where the help says so is settled by the data when training begins, and
// [Model.Config] then tells what it became.
type Config struct {
	Format    string  `json:"format" oneof:"(by the file's name),table,jsonl,label-first" group:"Data" help:"how the file is laid out"`
	Text      string  `json:"text" group:"Data" help:"column of the text (empty: text, or the only one beside the label)"`
	Label     string  `json:"label" group:"Data" help:"column of the label (empty: label)"`
	Separator string  `json:"separator" group:"Data" help:"separates several labels of one text, such as | (empty: a text has one label)"`
	Encoding  string  `json:"encoding" oneof:"(utf-8, lines that are not as latin-1),utf-8,latin-1" group:"Data" help:"bytes of the text"`
	Holdout   float64 `json:"holdout" range:"0..0.9" group:"Data" help:"share of the training texts to validate on where no file is given for it"`
	Fold      string  `json:"fold" group:"Data" help:"keep part K of N of the texts for the test, as in cross-validation, such as 1/5"`

	Tokens         string `json:"tokens" oneof:"word (Chinese, Japanese and Thai by character),char,space,bpe,charbpe,unigram" group:"Text" help:"what a token is"`
	Lowercase      bool   `json:"lowercase" group:"Text" help:"make texts lower case"`
	MinCount       int    `json:"min_count" range:"0..1e9" group:"Text" help:"tokens seen fewer times in training are unknown"`
	VocabularySize int    `json:"vocabulary_size" range:"10..2e6" group:"Text" help:"most tokens to know"`
	MaxLength      int    `json:"max_length" range:"1..1e6" group:"Text" help:"tokens read of a text; of a longer one the beginning counts"`
	Vectors        string `json:"vectors" value:"file" group:"Text" help:"file of word vectors to start from: word2vec's, GloVe's or fastText's text format"`

	Embedding int `json:"embedding" range:"1..8192" group:"Model" help:"numbers a token's vector has (with vectors: as many as those)"`
	task.RNNConfig
	Pool        string  `json:"pool" oneof:"max,mean,last,attention" group:"Model" help:"how steps become one vector"`
	Dropout     float64 `json:"dropout" range:"0..0.99" group:"Model" help:"dropout of the tokens' vectors and before the output"`
	WordDropout float64 `json:"word_dropout" range:"0..0.99" group:"Model" help:"share of tokens made unknown in training"`
	Linear      bool    `json:"linear" group:"Model" help:"mix the linear method's answers in, by the share that validation asks for"`

	ClassWeights string  `json:"class_weights" oneof:"none,balanced (rare ones count more)" group:"Training" help:"what an error counts, by class"`
	Smoothing    float64 `json:"smoothing" range:"0..0.99" group:"Training" help:"label smoothing"`
	Batch        int     `json:"batch" range:"0..1e5" group:"Training" help:"texts a step (0: 32, more where there are very many)"`
	train.Settings
}

// UnmarshalJSON reads a configuration, that of an older model too.
func (c *Config) UnmarshalJSON(raw []byte) error {
	type fields Config
	return settings.Decode(raw, (*fields)(c))
}

// Defaults is the configuration that a user starts from.
func Defaults() Config {
	c := Config{
		Holdout: 0.1, Tokens: "word", Lowercase: true, MinCount: 2, VocabularySize: 50000, MaxLength: 1000,
		Embedding: 128, RNNConfig: task.DefaultRNN(), Pool: "max", Dropout: 0.3, WordDropout: 0.1, Linear: true,
		ClassWeights: "none", Settings: train.DefaultSettings(),
	}
	c.Hidden, c.Bidirectional = 128, true
	c.EMA = 0.99
	return c
}

// Validate reports the first thing wrong with a configuration, in one line; it
// is a *data.InputError.
func (c *Config) Validate() error {
	if err := cmp.Or(settings.Check(c), c.RNNConfig.Validate()); err != nil {
		return data.Setting(err)
	}
	if c.Separator != "" && (c.Smoothing > 0 || c.ClassWeights != "none") {
		return data.Errorf("smoothing and class_weights are for texts of one label; leave them out, or the separator")
	}
	_, _, err := task.ParseFold(c.Fold)
	return err
}

// examples says how the configuration reads a file.
func (c *Config) examples(unlabeled bool, note func(string)) *data.ExampleOptions {
	return &data.ExampleOptions{
		Format: c.Format, Text: c.Text, Label: c.Label, Separator: c.Separator, Encoding: c.Encoding, Unlabeled: unlabeled, Note: note,
	}
}

// settle fills in what depends on the number of training texts.
func (c *Config) settle(texts int) {
	if c.Batch == 0 {
		c.Batch = 32
		for c.Batch < 256 && texts > 1000*c.Batch {
			c.Batch *= 2
		}
	}
	// About 4,000 steps teach a small corpus; a large one needs few passes.
	steps := (texts + c.Batch - 1) / c.Batch
	c.FillDefaults(min(max(3000/max(steps, 1), 3), 40))
}

func (c *Config) describe() string {
	kind := strings.ToUpper(c.Cell)
	if c.Bidirectional {
		kind = "Bi" + kind
	}
	return fmt.Sprintf("%s with %s pooling", kind, c.Pool)
}
