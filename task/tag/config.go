package tag

import (
	"cmp"
	"fmt"
	"math"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/train"
)

// Config is everything that a tagger is made from. Command-line flags, recipe
// files and Go programs fill this one struct; start from [Defaults]. A zero or
// "auto" is replaced when training begins, where the help says so, by a value that
// depends on the data; [Model.Config] returns the value chosen.
type Config struct {
	Format      string  `json:"format" oneof:"(by the file's name),conll,conllu,bmes" group:"Data" help:"file format"`
	Token       string  `json:"token" was:"token_col,token_column" group:"Data" help:"column of the tokens: a number from 1, or from -1 backwards (empty: the first; conllu: form)"`
	Tag         string  `json:"tag" was:"tag_col,tag_column" group:"Data" help:"column of the tags: a number likewise, in conllu also a name such as xpos (empty: the last; conllu: upos)"`
	Scheme      string  `json:"scheme" oneof:"auto (detected from the tags),labels (tags mark no spans),iob1,iob2,bioes,bmes,bilou" group:"Data" help:"scheme in which tags mark spans"`
	Encoding    string  `json:"encoding" oneof:"(utf-8, but latin-1 for lines that are not valid),utf-8,latin-1" group:"Data" help:"encoding of the files"`
	Holdout     float64 `json:"holdout" range:"0..0.9" group:"Data" help:"share of the training sentences drawn for validation if there is no validation file"`
	PieceLength int     `json:"piece_length" was:"max_length" range:"1..1e5" group:"Data" help:"most tokens that are read together; longer sentences are divided into pieces, after a full stop if possible"`

	FoldCase       bool   `json:"fold_case" was:"lowercase" group:"Words" help:"words that differ only in case share a vector (characters and affixes keep the case)"`
	MinCount       int    `json:"min_count" range:"0..1e9" group:"Words" help:"tokens with fewer occurrences in training have no vector of their own, only their characters and affixes (0: 1)"`
	VocabularySize int    `json:"vocabulary_size" range:"10..2e6" group:"Words" help:"largest size of the vocabulary"`
	Embedding      int    `json:"embedding" range:"1..8192" group:"Words" help:"size of a token's vector"`
	Vectors        string `json:"vectors" value:"file" group:"Words" help:"file with pretrained word vectors, in the text format of word2vec, GloVe or fastText"`
	Chars          string `json:"chars" oneof:"auto (cnn, or none if tokens are characters),cnn,lstm,none" group:"Words" help:"network that reads a word's characters"`
	CharHidden     int    `json:"char_hidden" range:"2..4096" group:"Words" help:"size of the vector computed from a word's characters"`
	Affixes        int    `json:"affixes" range:"0..1024" group:"Words" help:"size of the vector of each prefix, suffix and shape of a word (0: none; always 0 if tokens are characters)"`
	Pairs          string `json:"pairs" oneof:"auto (on if tokens are characters),on,off" group:"Words" help:"vectors of pairs of neighbouring tokens"`

	task.RNNConfig
	Decoder     string  `json:"decoder" oneof:"crf (a conditional random field over the sentence),softmax (each token independently)" group:"Model" help:"how tags are chosen"`
	Dropout     float64 `json:"dropout" range:"0..0.99" group:"Model" help:"dropout of the inputs and outputs of the recurrent layers"`
	WordDropout float64 `json:"word_dropout" range:"0..0.99" group:"Model" help:"share of words whose vectors are zeroed in training; their characters and affixes are not"`

	Batch int `json:"batch" range:"0..1e5" group:"Training" help:"number of sentences per step (0: 16 to 256, by the number of sentences)"`
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
		Scheme: "auto", Holdout: 0.1, PieceLength: 500,
		FoldCase: true, MinCount: 2, VocabularySize: 50000, Embedding: 100, Chars: "auto", CharHidden: 64, Affixes: 16, Pairs: "auto",
		RNNConfig: task.DefaultRNN(), Decoder: "crf", Dropout: 0.5, WordDropout: 0.1, Settings: train.DefaultSettings(),
	}
	c.Hidden, c.Bidirectional = 128, true
	return c
}

// Validate returns the first invalid setting as a *data.InputError of one line,
// or nil.
func (c *Config) Validate() error {
	if err := cmp.Or(settings.Check(c), c.RNNConfig.Validate(), c.Settings.Validate()); err != nil {
		return data.Setting(err)
	}
	if c.Tag == "none" {
		return data.Errorf("tag: training needs tags; name their column")
	}
	return nil
}

// reading returns the options for reading a file.
func (c *Config) reading(tagged bool, note func(string)) *data.ConllOptions {
	o := &data.ConllOptions{Format: c.Format, Token: c.Token, Tag: c.Tag, Encoding: c.Encoding, Keep: !tagged, Note: note}
	if !tagged {
		o.Tag = "none"
	}
	return o
}

// settle sets the values that depend on the training data.
func (c *Config) settle(d *corpus) {
	characters := d.lettersPerToken() < oneLetter
	for _, choice := range []struct {
		setting               *string
		ofWords, ofCharacters string
	}{{&c.Chars, "cnn", "none"}, {&c.Pairs, "off", "on"}} {
		switch {
		case *choice.setting != "auto":
		case characters:
			*choice.setting = choice.ofCharacters
		default:
			*choice.setting = choice.ofWords
		}
	}
	if characters {
		c.Affixes = 0
	}
	pieces := len(d.pieces)
	if c.Batch == 0 {
		c.Batch = 16
		for c.Batch < 256 && pieces > 1000*c.Batch {
			c.Batch *= 2
		}
	}
	steps := (pieces + c.Batch - 1) / c.Batch
	epochs := min(max(8000/max(steps, 1), 3), 100)
	if c.Patience == 0 {
		c.Patience = max(10, epochs/2) // few spans are found in the first epochs, or none
	}
	c.FillDefaults(epochs)
}

// describe describes the network in a few words.
func (c *Config) describe() string {
	kind := strings.ToUpper(c.Cell)
	if c.Bidirectional {
		kind = "Bi" + kind
	}
	what := "spans in " + c.Scheme
	if Scheme(c.Scheme) == Labels {
		what = "a label for each token"
	}
	return fmt.Sprintf("%s with %s, %s", kind, c.Decoder, what)
}

// lettersPerToken returns the mean length of the tokens in characters.
func (d *corpus) lettersPerToken() float64 {
	letters := 0
	for _, w := range d.tokens {
		letters += d.words[w].letters
	}
	return float64(letters) / math.Max(1, float64(len(d.tokens)))
}
