package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/generate"
)

func (a *app) generateCommand() *cobra.Command {
	var prompt string
	var stream bool
	o := generate.DefaultPredict()
	var options *options
	c := &cobra.Command{
		Use:   "generate DIR --prompt TEXT",
		Short: "Continue a prompt with a language model",
		Long: `Writes a text that follows the prompt, token by token, each drawn from what the
model expects. Without a prompt it begins a new document. The state is kept, so
that a long text costs no more for each token than a short one.`,
		Example: `  carousel generate run --prompt 'The cat sat on the' --max-tokens 100
  carousel generate run --prompt 'func ' --temperature 0.7 --stop '\n}\n' --stream
  carousel generate run --prompt 'Once' --samples 5 --top-p 0.9 --seed 7 --json`,
		GroupID: groupWork,
		Args:    oneArg("a model directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := options.resolve(); err != nil {
				return err
			}
			o.Seed = a.seed
			if stream && (o.Samples > 1 || a.json) {
				return misusef("--stream writes one text while it is generated: leave out --samples and --json")
			}
			on, err := a.device()
			if err != nil {
				return err
			}
			m, err := generate.Open(args[0], on)
			if err != nil {
				return err
			}
			return a.generate(c.Context(), m, prompt, &o, stream)
		},
	}
	c.Flags().StringVar(&prompt, "prompt", "", "`text` to continue (empty: the beginning of a document)")
	options = optionFlags(c.Flags(), nil, &o)
	c.Flags().BoolVar(&stream, "stream", false, "write the text while it is generated")
	a.computes.bind(c.Flags())
	return c
}

// generate writes texts that follow one prompt.
func (a *app) generate(ctx context.Context, m *generate.Model, prompt string, o *generate.PredictOptions, stream bool) error {
	ctx, stop := a.catchInterrupt(ctx)
	defer stop()
	if stream {
		if _, err := io.WriteString(a.stdout, prompt); err != nil {
			return err
		}
		o.OnText = func(_ int, part string) error {
			_, err := io.WriteString(a.stdout, part)
			return err
		}
	}
	list, err := m.Generate(ctx, []string{prompt}, o)
	if stream {
		_, end := fmt.Fprintln(a.stdout)
		return cmp.Or(err, end)
	}
	if err != nil {
		return err
	}
	p := &generate.Predictions{Task: generate.Name, List: list}
	return a.emit("generate", p, p.Print)
}

// scoring is the result of score.
type scoring struct {
	Task    string            `json:"task"`    // the task of the model
	Prompt  string            `json:"prompt"`  // the text that comes before
	Ranking []generate.Scored `json:"ranking"` // the likeliest first
}

func (a *app) scoreCommand() *cobra.Command {
	var prompt string
	var continuations []string
	var exactly bool
	c := &cobra.Command{
		Use:   "score DIR --prompt TEXT --continuation TEXT...",
		Short: "Rank continuations of a text by a language model",
		Long: `Ranks continuations of a prompt by the probability that a language model gives
them. Without --continuation they are the lines of standard input that are not blank. A continuation
that begins with a letter or digit, after a prompt that ends with one, counts as a
new word after a space, unless --exactly is given.`,
		Example: `  carousel score run --prompt 'The cat sat on the' --continuation mat --continuation floor
  carousel score run --prompt 'if err != nil {' --exactly < candidates.txt --json`,
		GroupID: groupWork,
		Args:    oneArg("a model directory"),
		RunE: func(c *cobra.Command, args []string) error {
			on, err := a.device()
			if err != nil {
				return err
			}
			m, err := generate.Open(args[0], on)
			if err != nil {
				return err
			}
			if len(continuations) == 0 {
				if continuations, err = (task.Input{Stream: a.stdin}).EachText(m.Config().Encoding, a.remark); err != nil {
					return err
				}
				continuations = slices.DeleteFunc(continuations, func(s string) bool { return strings.TrimSpace(s) == "" })
			}
			if len(continuations) == 0 {
				return misusef("nothing to rank: give --continuation, or lines on standard input")
			}
			ranking, err := m.Score(c.Context(), prompt, continuations, exactly)
			if err != nil {
				return err
			}
			return a.emit("score", &scoring{generate.Name, prompt, ranking}, func(w io.Writer) { printRanking(w, ranking) })
		},
	}
	c.Flags().StringVar(&prompt, "prompt", "", "`text` that comes before (empty: the beginning of a document)")
	c.Flags().StringArrayVar(&continuations, "continuation", nil, "`text` that may follow; may be repeated")
	c.Flags().BoolVar(&exactly, "exactly", false, "put nothing between the prompt and a continuation")
	a.computes.bind(c.Flags())
	return c
}

func printRanking(w io.Writer, ranking []generate.Scored) {
	var rows [][]string
	for _, s := range ranking {
		rows = append(rows, []string{s.Continuation, report.Number(s.LogProb), report.Number(s.PerToken), report.Count(s.Tokens)})
	}
	printTable(w, []string{"continuation", "log p", "log p a token", "tokens"}, rows)
}
