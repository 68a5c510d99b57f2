package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/text/g2p"
)

func (a *app) g2pCommand() *cobra.Command {
	var weights, out string
	c := &cobra.Command{
		Use:   "g2p WORD...|- --model FILE",
		Short: "Pronounce English words: graphemes to phonemes",
		Long: `Writes the pronunciation of English words, or of those in the lines of standard input
(-), by the network of g2p-en: a line for each word, with its phonemes behind a tab, as
in the CMU pronouncing dictionary, vowels with their stress. --model is the network's
file checkpoint20.npz, which is not a part of Carousel.

A dictionary is better for the words that it has. Case and accents are ignored; numbers
and abbreviations are to be written out before.`,
		Example: `  carousel g2p activationist --model checkpoint20.npz
  carousel g2p - --model checkpoint20.npz < words.txt > lexicon.txt`,
		GroupID: groupWork,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) > 1 && slices.Contains(args, data.Stdin) {
				return misusef("g2p needs words, or only - for standard input; see %s --help", c.CommandPath())
			}
			return nil
		},
	}
	c.Flags().StringVar(&weights, "model", "", "`file` of the network, checkpoint20.npz of g2p-en")
	c.Flags().StringVar(&out, "out", "", "`file` for the lines")
	c.RunE = func(c *cobra.Command, args []string) error {
		if weights == "" {
			return misusef("g2p needs --model, the checkpoint20.npz of g2p-en")
		}
		m, err := g2p.Open(weights)
		if err != nil {
			return err
		}
		in := task.Input{Texts: args}
		if args[0] == data.Stdin {
			in = task.Input{Stream: a.stdin}
		}
		return a.emitLines(c, "g2p", out, in, "", &pronounced{}, func(line int, text string) (task.Prediction, error) {
			part := &pronounced{}
			for word := range strings.FieldsSeq(text) {
				list, err := m.Phonemes(word)
				if err != nil && args[0] == data.Stdin {
					err = fmt.Errorf("standard input: line %d: %w", line, err)
				}
				if err != nil {
					return nil, err
				}
				part.Words = append(part.Words, pronunciation{word, list})
			}
			return part, nil
		})
	}
	return c
}

// pronounced are words with their pronunciations.
type pronounced struct {
	Words []pronunciation `json:"words"` // as they were given, in their order
}

// pronunciation is a word with its pronunciation.
type pronunciation struct {
	Word     string   `json:"word"`     // as it was given
	Phonemes []string `json:"phonemes"` // of the CMU pronouncing dictionary, at most 20
}

// Write writes a line for each word. Its error is that of w.
func (p *pronounced) Write(w io.Writer) error {
	for _, one := range p.Words {
		if _, err := fmt.Fprintf(w, "%s\t%s\n", one.Word, strings.Join(one.Phonemes, " ")); err != nil {
			return err
		}
	}
	return nil
}

// Print writes what Write does.
func (p *pronounced) Print(w io.Writer) { _ = p.Write(w) }
