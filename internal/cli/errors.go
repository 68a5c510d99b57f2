package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/train"
)

// misuse is an error in the command line or the input: exit code 2.
type misuse struct {
	text string
	flag string // the faulty flag, without dashes; "" if it is not a flag, or not known
}

func (e *misuse) Error() string { return e.text }

func misusef(format string, args ...any) error {
	return &misuse{text: fmt.Sprintf(format, args...)}
}

// wrongFlag is misuse of a flag.
func wrongFlag(flag, format string, args ...any) error {
	return &misuse{fmt.Sprintf(format, args...), flag}
}

// interrupted ends a run that Ctrl-C stopped.
type interrupted struct{ text string }

func (e *interrupted) Error() string { return e.text }

// plainFileError returns the reason why a file could not be used, without the path,
// which the message has already.
func plainFileError(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// oneLine folds a message onto one line, as an error is printed.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// movedFlags are flags that were replaced by another command.
var movedFlags = map[string]string{"carousel train classify --audio": "carousel train keywords"}

// flagError writes pflag's errors in this command's form: the flag, what was
// expected, and for an unknown flag the one with the most similar name.
func flagError(c *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		name := unknown.GetSpecifiedName()
		if now := movedFlags[c.CommandPath()+" --"+name]; now != "" {
			return wrongFlag(name, "unknown flag --%s for %q; that is %s now", name, c.CommandPath(), now)
		}
		var names []string
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		help := fmt.Sprintf("; see %s --help", c.CommandPath())
		if hint := settings.DidYouMean(name, names, "--", ""); hint != "" {
			help = hint
		} else if c.HasAvailableSubCommands() {
			help = "; name a command first: " + strings.Join(commandNames(c), ", ")
		}
		dashes := "--"
		if unknown.GetSpecifiedShortnames() != "" {
			dashes = "-"
		}
		return wrongFlag(name, "unknown flag %s%s for %q%s", dashes, name, c.CommandPath(), help)
	}
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		return wrongFlag(invalid.GetFlag().Name, "--%s: %s", invalid.GetFlag().Name, plainCause(invalid))
	}
	var needed *pflag.ValueRequiredError
	if errors.As(err, &needed) {
		return wrongFlag(needed.GetFlag().Name, "--%s needs a value: %s", needed.GetSpecifiedName(), needed.GetFlag().Usage)
	}
	return misusef("%v", err)
}

// commandNames lists a command's sub-commands.
func commandNames(c *cobra.Command) []string {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return names
}

// plainCause returns the reason why a flag's value was refused, in plain words; errors
// of settings have it already.
func plainCause(err *pflag.InvalidValueError) string {
	want := map[string]string{
		"uint64": "a whole number, 0 or more", "int": "a whole number", "bool": "true or false",
	}[err.GetFlag().Value.Type()]
	if want == "" {
		return err.Unwrap().Error()
	}
	return fmt.Sprintf("want %s, got %q", want, err.GetValue())
}

// noArgs and oneArg check the arguments that are not flags.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return misusef("%s takes flags only, got %q; see %s --help", c.CommandPath(), args[0], c.CommandPath())
	}
	return nil
}

func oneArg(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return misusef("%s needs %s; see %s --help", c.CommandPath(), what, c.CommandPath())
		case len(args) > 1:
			return misusef("%s takes only %s, got also %q", c.CommandPath(), what, args[1])
		}
		return nil
	}
}

// messageOf returns the line that is printed for an error.
func messageOf(err error) string {
	if err == context.Canceled {
		return "interrupted"
	}
	return oneLine(err.Error())
}

// problem is an error as JSON: the message, and its parts as far as they are known.
type problem struct {
	Error  string `json:"error"`            // the message, in one line, as on stderr
	File   string `json:"file,omitempty"`   // the file at fault, as it was named
	Line   int    `json:"line,omitempty"`   // its line (of a Parquet file, row) at fault, from 1
	Column string `json:"column,omitempty"` // the column at fault of a table
	Tensor string `json:"tensor,omitempty"` // the tensor at fault of a file of weights
	Flag   string `json:"flag,omitempty"`   // the flag at fault, without dashes
	Fix    string `json:"fix,omitempty"`    // how to correct it; also in the message
	Exit   int    `json:"exit"`             // the exit code: 1 failed, 2 misuse (a flag, a file or a value that cannot be right), 130 interrupted
}

func problemOf(err error) *problem {
	p := &problem{Error: messageOf(err), Exit: exitCode(err)}
	var (
		wrong *misuse
		input *data.InputError
		file  *model.FileError
		keep  *train.UnknownParameterError
	)
	switch {
	case errors.As(err, &wrong):
		p.Flag = wrong.flag
	case errors.As(err, &keep):
		p.Flag = "precision-keep"
	case errors.As(err, &input):
		p.File, p.Line, p.Column, p.Fix = input.File, input.Line, input.Column, input.Fix
	case errors.As(err, &file):
		p.File, p.Tensor, p.Fix = file.File, file.Tensor, file.Fix
	}
	return p
}

// printProblem prints an error on stdout, with --json: in the result that has begun, or
// else as an object. It does nothing after a result was printed.
func (a *app) printProblem(err error) {
	if a.json && a.endParts(err) != nil {
		a.printJSON("error", problemOf(err), nil) // if it fails, stderr has the message
	}
}

// exitCode returns the exit code for an error.
func exitCode(err error) int {
	var launched *launchFailed
	if errors.As(err, &launched) {
		return launched.code
	}
	var stopped *interrupted
	if errors.As(err, &stopped) || errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	var (
		wrong *misuse
		input *data.InputError
		file  *model.FileError
		keep  *train.UnknownParameterError
	)
	if errors.As(err, &wrong) || errors.As(err, &input) || errors.As(err, &file) || errors.As(err, &keep) {
		return exitMisuse
	}
	return exitFailure
}
