package tag

import (
	"cmp"
	"fmt"
	"github.com/carousel-ml/carousel/task"
	"math"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/train"
)

// Config is everything that a tagger is made from. Command-line flags, recipe
// files and Go programs fill this one struct; start from [Defaults]. A zero or
// "auto" is replaced when training begins, where the help says so, by a value that
// depends on the data; [Model.Config] returns the value chosen.
type Config struct {
	Format      string  `json:"format" oneof:"(by the file's name),conll,conllu,bmes" group:"Data" help:"how the file is laid out"`
	TokenColumn string  `json:"token_column" was:"token_col" group:"Data" help:"column of the tokens: a number from 1, or from -1 backwards (empty: the first; conllu: form)"`
	TagColumn   string  `json:"tag_column" was:"tag_col" group:"Data" help:"column of the tags, likewise, in conllu also a name such as xpos (empty: the last; conllu: upos)"`
	Scheme      string  `json:"scheme" oneof:"auto (as the tags look),labels (not at all),iob1,iob2,bioes,bmes,bilou" group:"Data" help:"how tags mark spans"`
	Encoding    string  `json:"encoding" oneof:"(utf-8, lines that are not as latin-1),utf-8,latin-1" group:"Data" help:"bytes of the text"`
	Holdout     float64 `json:"holdout" range:"0..0.9" group:"Data" help:"share of the training sentences to validate on where no file is given for it"`
	MaxLength   int     `json:"max_length" range:"1..1e5" group:"Data" help:"tokens in one piece; longer sentences are cut, behind a full stop where there is one"`

	Lowercase      bool   `json:"lowercase" group:"Words" help:"words that differ in case share a vector (their spelling tells them apart)"`
	MinCount       int    `json:"min_count" range:"0..1e9" group:"Words" help:"words seen fewer times in training are unknown, and told by their spelling"`
	VocabularySize int    `json:"vocabulary_size" range:"10..2e6" group:"Words" help:"most words to know"`
	Embedding      int    `json:"embedding" range:"1..8192" group:"Words" help:"numbers a word's vector has"`
	Vectors        string `json:"vectors" value:"file" group:"Words" help:"file of word vectors to start from: word2vec's, GloVe's or fastText's text format"`
	Chars          string `json:"chars" oneof:"auto (cnn, or none where a token is a character),cnn,lstm,none" group:"Words" help:"how a word's characters are read"`
	CharHidden     int    `json:"char_hidden" range:"2..4096" group:"Words" help:"numbers that come of a word's characters"`
	Affixes        int    `json:"affixes" range:"0..1024" group:"Words" help:"numbers in the vector of each of a word's beginnings and endings and its shape (0: none, as where a token is a character)"`
	Pairs          string `json:"pairs" oneof:"auto (on where a token is a character),on,off" group:"Words" help:"vectors of two neighbouring tokens together"`

	task.RNNConfig
	Decoder     string  `json:"decoder" oneof:"crf (whole sequences of tags compete),softmax (the tags of each token do)" group:"Model" help:"how tags are chosen"`
	Dropout     float64 `json:"dropout" range:"0..0.99" group:"Model" help:"dropout before and after the recurrent layers"`
	WordDropout float64 `json:"word_dropout" range:"0..0.99" group:"Model" help:"share of tokens whose word is hidden in training, so that spelling and context must tell"`

	Batch int `json:"batch" range:"0..1e5" group:"Training" help:"sentences a step (0: 16, more where there are very many)"`
	train.Settings
}

// UnmarshalJSON reads a configuration, also that of an older model.
func (c *Config) UnmarshalJSON(raw []byte) error {
	type fields Config
	return settings.Decode(raw, (*fields)(c))
}

// Defaults returns the configuration to start from.
func Defaults() Config {
	c := Config{
		Scheme: "auto", Holdout: 0.1, MaxLength: 500,
		Lowercase: true, MinCount: 2, VocabularySize: 50000, Embedding: 100, Chars: "auto", CharHidden: 64, Affixes: 16, Pairs: "auto",
		RNNConfig: task.DefaultRNN(), Decoder: "crf", Dropout: 0.5, WordDropout: 0.1, Settings: train.DefaultSettings(),
	}
	c.Hidden, c.Bidirectional = 128, true
	return c
}

// Validate checks the configuration. The first invalid setting is a
// *data.InputError of one line.
func (c *Config) Validate() error {
	if err := cmp.Or(settings.Check(c), c.RNNConfig.Validate()); err != nil {
		return data.Setting(err)
	}
	if c.TagColumn == "none" {
		return data.Errorf("tag_column: training needs tags; name their column")
	}
	return nil
}

// reading says how the configuration reads a file.
func (c *Config) reading(tagged bool, note func(string)) *data.ConllOptions {
	o := &data.ConllOptions{Format: c.Format, Token: c.TokenColumn, Tag: c.TagColumn, Encoding: c.Encoding, Keep: !tagged, Note: note}
	if !tagged {
		o.Tag = "none"
	}
	return o
}

// settle fills in what depends on the training data.
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

// lettersPerToken is the mean length of the tokens, in characters.
func (d *corpus) lettersPerToken() float64 {
	letters := 0
	for _, w := range d.tokens {
		letters += d.words[w].letters
	}
	return float64(letters) / math.Max(1, float64(len(d.tokens)))
}
