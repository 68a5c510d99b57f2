package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/text"
)

func (a *app) segmentCommand() *cobra.Command {
	var models []string
	var separator, encoding, out string
	c := &cobra.Command{
		Use:   "segment FILE|- --segmenter FILE",
		Short: "Divide texts into words, also in Thai, Lao, Khmer and Burmese",
		Long: `Divides each line of a text file, or of standard input, into words. Thai, Lao, Khmer
and Burmese put no spaces between them: --segmenter is the weights.json of a model of
Unicode's lstm_word_segmentation for one of these scripts, which is not a part of
Carousel, and may be given for each. The words of other scripts are those of the kind of
token word.

The tasks on texts take the same flag, and find these words themselves.`,
		Example: `  carousel segment article.txt --segmenter thai.json
  carousel segment - --segmenter thai.json --segmenter khmer.json --separator '|'`,
		GroupID: groupWork,
		Args:    oneArg("a text file, or - for standard input"),
	}
	c.Flags().StringArrayVar(&models, "segmenter", nil, "`file` of a model for a script, weights.json of lstm_word_segmentation; may be repeated")
	c.Flags().StringVar(&separator, "separator", " ", "`text` between two words")
	c.Flags().StringVar(&encoding, "encoding", "", "encoding of the text: utf-8 or latin-1 (default: utf-8, but latin-1 for lines that are not valid)")
	c.Flags().StringVar(&out, "out", "", "`file` for the lines")
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(models) == 0 {
			return misusef("segment needs --segmenter, the weights.json of a model of lstm_word_segmentation")
		}
		o := &text.TokenizerOptions{}
		var err error
		if o.Segmenters, err = text.OpenSegmenters(models); err != nil {
			return err
		}
		words, err := text.TrainTokenizer(c.Context(), "word", slices.Values([]string{"."}), o)
		if err != nil {
			return err
		}
		in := task.Input{File: args[0]}
		if args[0] == data.Stdin {
			in = task.Input{Stream: a.stdin}
		}
		return a.emitLines(c, "segment", out, in, encoding, &segmented{}, func(line int, text string) (task.Prediction, error) {
			one := segmentedLine{line, []string{}}
			for _, t := range words.Tokens(nil, text) {
				one.Words = append(one.Words, text[t.Start:t.End])
			}
			return &segmented{[]segmentedLine{one}, separator}, nil
		})
	}
	return c
}

// segmented are lines of a text as words.
type segmented struct {
	Lines []segmentedLine `json:"lines"` // of the text, in their order

	separator string
}

// segmentedLine is a line of a text as words.
type segmentedLine struct {
	Line  int      `json:"line"`  // its number, from 1
	Words []string `json:"words"` // without the white space between them
}

// Write writes a line of words for each line. Its error is that of w.
func (s *segmented) Write(w io.Writer) error {
	for _, one := range s.Lines {
		if _, err := fmt.Fprintln(w, strings.Join(one.Words, s.separator)); err != nil {
			return err
		}
	}
	return nil
}

// Print writes what Write does.
func (s *segmented) Print(w io.Writer) { _ = s.Write(w) }
