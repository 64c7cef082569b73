//! Copies Java libraries, with all that they need, from the user's Maven repositories into `lib/`.
//!
//! Maven resolves a project file of ours that has nothing but dependencies. Its own download cache is the user's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::step::{need, quiet, step};

/// The plugin that copies; named so that a new release does not change what is installed.
const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// The same plugin's goal for one file. This release takes it without its project file's parent, which a mirror may lack.
const GET: &str = "org.apache.maven.plugins:maven-dependency-plugin:2.8:get";

/// Fetches one `group:artifact:version:type:classifier`, and nothing that it depends on, into a repository of `work`.
pub fn fetch(artifact: &str, work: &Path) -> Result<PathBuf> {
    need("java", "apt-get install openjdk-17-jre-headless")?;
    need("mvn", "apt-get install maven")?;
    let repository = work.join("repository");
    step(&format!("download {artifact} (about 110 MB)"), || {
        quiet(
            Command::new("mvn")
                .args(["--batch-mode", "--no-transfer-progress", "--quiet", GET, "-Dtransitive=false"])
                .arg(format!("-Dartifact={artifact}"))
                .arg(format!("-Dmaven.repo.local={}", repository.display()))
                .current_dir(work),
        )
    })?;
    Ok(repository.join(path_of(artifact)?))
}

/// Where a repository has an artifact.
fn path_of(artifact: &str) -> Result<PathBuf> {
    let [group, name, version, kind, classifier] =
        artifact.split(':').collect::<Vec<_>>().try_into().ok().context("not five words")?;
    let folder = Path::new(&group.replace('.', "/")).join(name).join(version);
    Ok(folder.join(format!("{name}-{version}-{classifier}.{kind}")))
}

/// Fills `install/lib` with the jars of these `group:artifact:version` and of what they depend on when they run. A word
/// `-group:artifact` after a version leaves out one of these.
pub fn copy_jars(artifacts: &[&str], install: &Path, work: &Path) -> Result<()> {
    need("java", "apt-get install openjdk-17-jre-headless")?;
    need("mvn", "apt-get install maven")?;
    fs::write(work.join("pom.xml"), pom(artifacts))?;
    step(&format!("download {} (about 70 MB the first time)", artifacts[0]), || {
        quiet(
            Command::new("mvn")
                .args(["--batch-mode", "--no-transfer-progress", "--quiet", PLUGIN, "-DincludeScope=runtime"])
                .arg(format!("-DoutputDirectory={}", install.join("lib").display()))
                .current_dir(work),
        )
    })?;
    Ok(())
}

fn pom(artifacts: &[&str]) -> String {
    let mut text = String::from(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\n\
         <groupId>tidemill</groupId><artifactId>servers</artifactId><version>1</version><packaging>pom</packaging>\n\
         <dependencies>\n",
    );
    for artifact in artifacts {
        let (named, without) = artifact.split_once(" -").unwrap_or((artifact, ""));
        let mut words = named.split(':').chain(without.split(':').filter(|word| !word.is_empty()));
        let mut next = || words.next().unwrap_or_default();
        text += &format!(
            "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>",
            next(),
            next(),
            next()
        );
        if !without.is_empty() {
            text += &format!(
                "<exclusions><exclusion><groupId>{}</groupId><artifactId>{}</artifactId></exclusion></exclusions>",
                next(),
                next()
            );
        }
        text += "</dependency>\n";
    }
    text + "</dependencies>\n</project>\n"
}

#[cfg(test)]
mod tests {
    use super::{path_of, pom};

    #[test]
    fn a_project_file_names_each_artifact() {
        let text = pom(&["org.example:server:1.2", "org.example:log:3 -org.other:thing"]);
        assert!(
            text.contains(
                "<exclusion><groupId>org.other</groupId><artifactId>thing</artifactId></exclusion>"
            )
        );
        assert!(
            text.contains(
                "<groupId>org.example</groupId><artifactId>server</artifactId><version>1.2</version>"
            )
        );
        assert_eq!(text.matches("<dependency>").count(), 2);
    }

    #[test]
    fn an_artifact_has_its_place_in_a_repository() {
        let path = path_of("org.example:server:1.2:tar.gz:all").unwrap();
        assert_eq!(path.to_str(), Some("org/example/server/1.2/server-1.2-all.tar.gz"));
    }
}
