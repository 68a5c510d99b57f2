package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/carousel-ml/carousel/internal/cli/recipe"
	"github.com/carousel-ml/carousel/internal/settings"
)

// usage prints a command's help below its description: how to call it,
// examples, sub-commands, and the flags under their headings.
func usage(c *cobra.Command) error {
	w := c.OutOrStderr()
	fmt.Fprintf(w, "Usage:\n  %s\n", useLine(c))
	if c.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n%s\n", strings.TrimRight(c.Example, "\n"))
	}
	printCommands(w, c)
	for _, g := range flagGroups(c) {
		fmt.Fprintf(w, "\n%s:\n%s", g.title, g.flags.FlagUsagesWrapped(width(w)))
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\n%s COMMAND --help shows more.\n", c.CommandPath())
	}
	return nil
}

func useLine(c *cobra.Command) string {
	if c.HasAvailableSubCommands() {
		return c.CommandPath() + " COMMAND [flags]"
	}
	return c.UseLine()
}

func printCommands(w io.Writer, c *cobra.Command) {
	if !c.HasAvailableSubCommands() {
		return
	}
	groups := c.Groups()
	if len(groups) == 0 {
		groups = []*cobra.Group{{Title: "Commands:"}}
	}
	for _, g := range groups {
		fmt.Fprintf(w, "\n%s\n", g.Title)
		for _, sub := range c.Commands() {
			if sub.GroupID == g.ID && (sub.IsAvailableCommand() || sub.Name() == "help") {
				fmt.Fprintf(w, "  %-*s %s\n", sub.NamePadding(), sub.Name(), sub.Short)
			}
		}
	}
}

// keepOrder lists flags in the order in which they were made.
func keepOrder(c *cobra.Command) {
	c.Flags().SortFlags, c.PersistentFlags().SortFlags = false, false
	for _, sub := range c.Commands() {
		keepOrder(sub)
	}
}

type flagGroup struct {
	title string
	flags *pflag.FlagSet
}

// flagGroups sorts a command's flags under their headings, in the order in
// which they were made.
func flagGroups(c *cobra.Command) []*flagGroup {
	var groups []*flagGroup
	put := func(title string, f *pflag.Flag) {
		i := slices.IndexFunc(groups, func(g *flagGroup) bool { return g.title == title })
		if i < 0 {
			i = len(groups)
			groups = append(groups, &flagGroup{title, pflag.NewFlagSet(title, pflag.ContinueOnError)})
			groups[i].flags.SortFlags = false
		}
		groups[i].flags.AddFlag(f)
	}
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		title := "Flags"
		if g := f.Annotations[recipe.Group]; len(g) > 0 && g[0] != "" {
			title = g[0]
		}
		if c.Parent() == nil || f.Name == "help" {
			title = "Every command"
		}
		put(title, f)
	})
	c.InheritedFlags().VisitAll(func(f *pflag.Flag) { put("Every command", f) })
	for i, g := range groups {
		if g.title == "Every command" {
			groups = append(slices.Delete(groups, i, i+1), g)
			break
		}
	}
	return groups
}

// width is the terminal's, or 100 columns elsewhere.
func width(w io.Writer) int {
	if c, ok := w.(*checked); ok {
		w = c.w
	}
	if f, ok := w.(*os.File); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n >= 40 {
			return n
		}
	}
	return 100
}

// docsCommand prints the whole command as one Markdown page, for docs/.
func docsCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "docs",
		Short:  "Print the command's reference as Markdown",
		Hidden: true,
		Args:   noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			w := c.OutOrStdout()
			fmt.Fprintf(w, "# The carousel command\n\nWritten by `carousel docs`.\n")
			writeReference(w, c.Root())
			return nil
		},
	}
}

func writeReference(w io.Writer, c *cobra.Command) {
	about := c.Long
	if about == "" {
		about = c.Short + "."
	}
	fmt.Fprintf(w, "\n## %s\n\n%s\n\n```\n%s\n```\n", c.CommandPath(), about, useLine(c))
	if c.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n\n```\n%s\n```\n", c.Example)
	}
	for _, g := range flagGroups(c) {
		if g.title != "Every command" || c.Parent() == nil {
			fmt.Fprintf(w, "\n%s:\n\n", g.title)
			if list := settingsOf(g.flags); list != nil {
				settings.WriteTable(w, list, func(s *settings.Setting) string { return "--" + s.Flag() })
			} else {
				fmt.Fprintf(w, "```\n%s```\n", g.flags.FlagUsages())
			}
		}
	}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "completion" {
			writeReference(w, sub)
		}
	}
}

// settingsOf are the settings behind flags, or nil if one of these is no setting.
func settingsOf(flags *pflag.FlagSet) (list []*settings.Setting) {
	all := true
	flags.VisitAll(func(f *pflag.Flag) {
		one, ok := f.Value.(*recipe.Flag)
		if all = all && ok; ok {
			list = append(list, one.Setting)
		}
	})
	if !all {
		return nil
	}
	return list
}

// completeChoices lets the shell complete the words that a flag may be.
func completeChoices(c *cobra.Command) {
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		words := choices(f.Value)
		if len(words) == 0 {
			return
		}
		// The error would be that the flag is not there, or has words already.
		_ = c.RegisterFlagCompletionFunc(f.Name, func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return words, cobra.ShellCompDirectiveNoFileComp
		})
	})
	for _, sub := range c.Commands() {
		completeChoices(sub)
	}
}

// choices are the words that a flag may be, with their notes; of several tasks'
// flag those of any of them.
func choices(v pflag.Value) []cobra.Completion {
	switch v := v.(type) {
	case sharedFlag:
		words := choices(v.Value)
		for _, w := range choices(v.other) {
			if !slices.Contains(words, w) {
				words = append(words, w)
			}
		}
		return words
	case *recipe.Flag:
		var words []cobra.Completion
		for _, c := range v.Choices {
			if c.Word != "" {
				words = append(words, cobra.CompletionWithDesc(c.Word, c.Note))
			}
		}
		return words
	}
	return nil
}
