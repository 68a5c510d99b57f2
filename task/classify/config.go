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

// Config is the settings of a classifier of texts. Command-line flags, recipe
// files and Go programs fill this one struct; start from [Defaults]. A zero is
// replaced when training begins, where the help says so, by a value that depends
// on the data; [Model.Config] returns the value chosen.
type Config struct {
	Format    string  `json:"format" oneof:"(by the file's name),table,jsonl,label-first" group:"Data" help:"file format"`
	Text      string  `json:"text" group:"Data" help:"column of the texts (empty: text, or the only column beside the labels)"`
	Label     string  `json:"label" group:"Data" help:"column of the labels (empty: label)"`
	Separator string  `json:"separator" group:"Data" help:"separator between several labels of a text, such as | (empty: each text has one label)"`
	Encoding  string  `json:"encoding" oneof:"(utf-8, but latin-1 for lines that are not valid),utf-8,latin-1" group:"Data" help:"encoding of the files"`
	Holdout   float64 `json:"holdout" range:"0..0.9" group:"Data" help:"share of the training texts drawn for validation if there is no validation file"`
	Fold      string  `json:"fold" group:"Data" help:"K/N: part K of N equal parts of the texts is the test part, as in cross-validation, such as 1/5 (empty: no test part)"`

	Tokens         string   `json:"tokens" oneof:"word (Chinese, Japanese and Thai by character),char,space,bpe,charbpe,unigram" group:"Text" help:"kind of token"`
	Segmenter      []string `json:"segmenter" value:"file" group:"Text" help:"models for words in Thai, Lao, Khmer and Burmese, weights.json of lstm_word_segmentation; needs tokens word (empty: these scripts by character)"`
	Case           string   `json:"case" was:"lowercase true=lower false=keep" oneof:"keep,lower" group:"Text" help:"conversion of the texts' letters"`
	MinCount       int      `json:"min_count" range:"0..1e9" group:"Text" help:"tokens with fewer occurrences in training are unknown (0: 1)"`
	VocabularySize int      `json:"vocabulary_size" range:"10..2e6" group:"Text" help:"largest size of the vocabulary"`
	Truncate       int      `json:"truncate" was:"max_length" range:"1..1e6" group:"Text" help:"most tokens of a text that are read; the rest of a longer text is not"`
	Vectors        string   `json:"vectors" value:"file" group:"Text" help:"file with pretrained word vectors, in the text format of word2vec, GloVe or fastText"`

	Embedding int `json:"embedding" range:"1..8192" group:"Model" help:"size of a token's vector (with vectors: their size)"`
	task.RNNConfig
	Pool         string  `json:"pool" oneof:"max,mean,last,attention" group:"Model" help:"how the outputs of the recurrent layers over time become one vector"`
	Dropout      float64 `json:"dropout" range:"0..0.99" group:"Model" help:"dropout of the tokens' vectors and before the output layer"`
	TokenDropout float64 `json:"token_dropout" was:"word_dropout" range:"0..0.99" group:"Model" help:"share of tokens whose vectors are zeroed in training"`
	Linear       bool    `json:"linear" group:"Model" help:"mix in the probabilities of the linear method, with the share that is best on the validation texts"`

	ClassWeights string  `json:"class_weights" oneof:"none,balanced (inverse to the class's frequency)" group:"Training" help:"weights of the classes in the loss"`
	Smoothing    float64 `json:"smoothing" range:"0..0.99" group:"Training" help:"label smoothing"`
	Batch        int     `json:"batch" range:"0..1e5" group:"Training" help:"number of texts per step (0: 32 to 256, by the number of texts)"`
	train.Settings
}

// UnmarshalJSON decodes a configuration, also one of an older version. Its errors
// are those of settings.Decode: unknown names and values of the wrong type.
func (c *Config) UnmarshalJSON(raw []byte) error {
	type fields Config
	return settings.Decode(raw, (*fields)(c))
}

// Defaults returns the configuration to start from.
func Defaults() Config {
	c := Config{
		Holdout: 0.1, Tokens: "word", Case: "lower", MinCount: 2, VocabularySize: 50000, Truncate: 1000,
		Embedding: 128, RNNConfig: task.DefaultRNN(), Pool: "max", Dropout: 0.3, TokenDropout: 0.1, Linear: true,
		ClassWeights: "none", Settings: train.DefaultSettings(),
	}
	c.Hidden, c.Bidirectional = 128, true
	c.EMA = 0.99
	return c
}

// Validate returns the first invalid setting as a *data.InputError of one line,
// or nil.
func (c *Config) Validate() error {
	if err := cmp.Or(settings.Check(c), c.RNNConfig.Validate(), c.Settings.Validate()); err != nil {
		return data.Setting(err)
	}
	if c.Separator != "" && (c.Smoothing > 0 || c.ClassWeights != "none") {
		return data.Errorf("smoothing and class_weights need texts with one label; leave them out, or the separator")
	}
	if len(c.Segmenter) > 0 && c.Tokens != "word" {
		return data.Errorf("segmenter: finds words; needs tokens word")
	}
	_, _, err := task.ParseFold(c.Fold)
	return err
}

// examples returns the options for reading a file.
func (c *Config) examples(note func(string)) *data.ExampleOptions {
	return &data.ExampleOptions{
		Format: c.Format, Text: c.Text, Label: c.Label, Separator: c.Separator, Encoding: c.Encoding, Note: note,
	}
}

// settle sets the values that depend on the number of training texts.
func (c *Config) settle(texts int) {
	if c.Batch == 0 {
		c.Batch = 32
		for c.Batch < 256 && texts > 1000*c.Batch {
			c.Batch *= 2
		}
	}
	// About 3,000 steps are enough for a small corpus; a large one needs few passes.
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
