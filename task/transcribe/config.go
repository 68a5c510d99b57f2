package transcribe

import (
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/speech"
)

// Config is everything that a recogniser is made from. Command-line flags,
// recipe files and Go programs fill this one struct; start from [Defaults].
// [Model.Config] has what the data settled.
type Config struct {
	speech.Setup
	Text           string `json:"text" group:"Data" help:"column of what is said"`
	Tokens         string `json:"tokens" was:"units" oneof:"char,bpe (pieces of words),space (words or phones, with spaces between them)" group:"Data" help:"what a token is, of which the network spells texts"`
	VocabularySize int    `json:"vocabulary_size" was:"vocabulary" range:"300..100000" group:"Data" help:"most pieces of words to know, 256 bytes and 4 special ones included"`
	Alphabet       string `json:"alphabet" value:"file" group:"Data" help:"file of the tokens, one a line (empty: those of the training texts)"`
	Case           string `json:"case" oneof:"keep,lower,upper" group:"Data" help:"letters of the texts"`

	LM       string `json:"lm" value:"file" group:"Decoding" help:"n-gram language model in ARPA format, kept with the model; its weight is tuned on the validation utterances"`
	LMTokens bool   `json:"lm_tokens" was:"lm_units" group:"Decoding" help:"the language model is of tokens (characters, <space>), not of words"`
	Lexicon  string `json:"lexicon" value:"file" group:"Decoding" help:"file of the words that texts may consist of, the first of each line, kept with the model"`
	Beam     int    `json:"beam" range:"0..10000" group:"Decoding" help:"hypotheses that the search keeps (0: greedy, or 64 with a language model or lexicon)"`
}

// UnmarshalJSON reads a configuration, that of an older model too.
func (c *Config) UnmarshalJSON(raw []byte) error {
	type fields Config
	if err := settings.Decode(raw, (*fields)(c)); err != nil {
		return err
	}
	c.Tokens = tokensToday(c.Tokens)
	return nil
}

// tokensToday is a choice of Config.Tokens by the name that it has today.
func tokensToday(tokens string) string {
	switch tokens {
	case "characters":
		return "char"
	case "symbols":
		return "space"
	}
	return tokens
}

// Defaults is the configuration that a user starts from: three layers of 256
// LSTM units in both directions on log-mel bands.
func Defaults() Config {
	s := speech.DefaultSetup()
	s.Layers, s.Hidden, s.Bidirectional, s.RNNDropout = 3, 256, true, 0.3
	return Config{Setup: s, Text: "text", Tokens: "char", VocabularySize: 500, Case: "keep"}
}

// Validate reports the first thing wrong with a configuration, in one line; it
// is a *data.InputError.
func (c *Config) Validate() error {
	if err := settings.Check(c); err != nil {
		return data.Setting(err)
	}
	if c.LMTokens && c.LM == "" {
		return data.Errorf("lm_tokens: says what the language model is of; name its file with lm")
	}
	if c.Lexicon != "" && c.Tokens == "space" {
		return data.Errorf("lexicon: words are spelled in characters; it has no use with tokens space")
	}
	if c.Alphabet != "" && c.Tokens == "bpe" {
		return data.Errorf("alphabet: tokens bpe are learned from the training texts; leave it out")
	}
	return c.Setup.Validate()
}

// clean brings a text to the form that the network spells: single spaces and
// the letters of Config.Case.
func (c *Config) clean(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	switch c.Case {
	case "lower":
		return strings.ToLower(text)
	case "upper":
		return strings.ToUpper(text)
	}
	return text
}
