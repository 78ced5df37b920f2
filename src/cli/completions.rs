//! `mohs completions` and `mohs man`: what shells and `man` want to know of the command line.

use super::arguments::{Arguments, CompletionsArguments, ManArguments};
use super::exit::{Blame, Failure};
use super::output::{OutputFile, OutputFolder, commit};
use super::terminal::print;
use clap::CommandFactory;
use std::io::Write;

/// Prints the completions.
pub(super) fn run(arguments: &CompletionsArguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Arguments::command(),
        "mohs",
        &mut script,
    );
    print(&String::from_utf8_lossy(&script)).or_bad_input()
}

/// Writes the manual pages.
pub(super) fn man(arguments: &ManArguments) -> Result<(), Failure> {
    let folder = OutputFolder::open(&arguments.out).or_bad_input()?;
    let mut files = Vec::new();
    for (name, page) in pages().or_bad_input()? {
        let mut file: OutputFile = folder.file(&name).or_bad_input()?;
        file.write_all(&page).or_bad_input()?;
        files.push(file);
    }
    commit(files).or_bad_input()
}

/// A page for the program and one for each of its commands, by the names of their files.
fn pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut whole = Arguments::command().disable_help_subcommand(true);
    whole.build();
    let mut commands = vec![whole.clone()];
    commands.extend(whole.get_subcommands().map(|command| {
        let name = format!("mohs-{}", command.get_name());
        // As in `man git-log`: the name with a hyphen, the command line with a space.
        command.clone().display_name(name)
    }));
    commands
        .into_iter()
        .map(|command| {
            let page = clap_mangen::Man::new(command);
            let mut text = Vec::new();
            page.render(&mut text)?;
            Ok((page.get_filename(), text))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_flags() {
        let pages = pages().unwrap();
        let commands = Arguments::command();
        for command in commands.get_subcommands() {
            let name = format!("mohs-{}.1", command.get_name());
            let page = pages.iter().find(|(file, _)| *file == name);
            let page = String::from_utf8_lossy(&page.expect("a page").1).into_owned();
            assert!(page.contains("Examples"), "{page}");
        }
        assert_eq!(pages[0].0, "mohs.1");
        let evaluate = pages.iter().find(|(file, _)| file == "mohs-evaluate.1");
        let evaluate = String::from_utf8_lossy(&evaluate.unwrap().1).into_owned();
        assert!(evaluate.contains("\\-\\-epsilon"), "{evaluate}");
    }

    #[test]
    fn completions_of_every_shell_know_the_flags() {
        use clap::ValueEnum;
        for shell in clap_complete::Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "mohs", &mut script);
            let script = String::from_utf8_lossy(&script);
            assert!(script.contains("save-adversarial"), "{shell}");
        }
    }
}
