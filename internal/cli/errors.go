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
)

// misuse is an error in what the user asked for: exit code 2.
type misuse struct{ text string }

func (e *misuse) Error() string { return e.text }

func misusef(format string, args ...any) error {
	return &misuse{fmt.Sprintf(format, args...)}
}

// interrupted ends a run that Ctrl-C stopped in good order.
type interrupted struct{ text string }

func (e *interrupted) Error() string { return e.text }

// plainFileError is why a file could not be used, without the path that the
// message has named already.
func plainFileError(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

// oneLine folds a message onto one line, as an error is printed.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// flagError words pflag's errors as this command's: the flag, what was
// expected, and the nearest flag for a slip.
func flagError(c *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		name := unknown.GetSpecifiedName()
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
		return misusef("unknown flag %s%s for %q%s", dashes, name, c.CommandPath(), help)
	}
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		return misusef("--%s: %s", invalid.GetFlag().Name, plainCause(invalid))
	}
	var needed *pflag.ValueRequiredError
	if errors.As(err, &needed) {
		return misusef("--%s needs a value: %s", needed.GetSpecifiedName(), needed.GetFlag().Usage)
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

// plainCause is why a flag's value was refused, in the user's words; settings
// say so themselves.
func plainCause(err *pflag.InvalidValueError) string {
	want := map[string]string{
		"uint64": "a whole number, 0 or more", "int": "a whole number", "bool": "true or false",
	}[err.GetFlag().Value.Type()]
	if want == "" {
		return err.Unwrap().Error()
	}
	return fmt.Sprintf("want %s, got %q", want, err.GetValue())
}

// noArgs and oneArg check what stands beside the flags.
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

// exitCode tells misuse from failure.
func exitCode(err error) int {
	var stopped *interrupted
	if errors.As(err, &stopped) || errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	var (
		wrong *misuse
		input *data.InputError
		file  *model.FileError
	)
	if errors.As(err, &wrong) || errors.As(err, &input) || errors.As(err, &file) {
		return exitMisuse
	}
	return exitFailure
}
