//! The language of a text, for figures by language.

use serde::{Deserialize, Serialize};
use whatlang::{Detector, Lang};

use crate::ticket::names;

names! {
    /// A language of the shipped packs.
    Language {
        /// German.
        De = "de",
        /// English.
        En = "en",
        /// Spanish.
        Es = "es",
        /// French.
        Fr = "fr",
        /// Italian.
        It = "it",
        /// Dutch.
        Nl = "nl",
        /// Portuguese.
        Pt = "pt",
        /// Another one, or too little text to tell.
        Other = "other",
    }
}

/// Those that are told apart; the fewer, the surer.
const KNOWN: [(Lang, Language); 7] = [
    (Lang::Deu, Language::De),
    (Lang::Eng, Language::En),
    (Lang::Spa, Language::Es),
    (Lang::Fra, Language::Fr),
    (Lang::Ita, Language::It),
    (Lang::Nld, Language::Nl),
    (Lang::Por, Language::Pt),
];

impl Language {
    /// The language of a text, by the frequencies of its trigrams.
    pub fn of(text: &str) -> Self {
        let found = Detector::with_allowlist(KNOWN.map(|(lang, _)| lang).to_vec()).detect(text);
        let lang = found.filter(whatlang::Info::is_reliable).map(|info| info.lang());
        KNOWN.iter().find(|(known, _)| Some(*known) == lang).map_or(Self::Other, |(_, language)| *language)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_languages_of_tickets_are_told() {
        for (text, expected) in [
            ("Since this morning nobody can pay in the web shop, the page shows an error.", Language::En),
            ("Seit heute früh kann niemand im Webshop bezahlen, die Seite zeigt einen Fehler.", Language::De),
            ("Depuis ce matin personne ne peut payer dans la boutique, la page affiche une erreur.", Language::Fr),
            ("Desde esta mañana nadie puede pagar en la tienda, la página muestra un error.", Language::Es),
            ("Da stamattina nessuno riesce a pagare nel negozio, la pagina mostra un errore.", Language::It),
            ("Sinds vanochtend kan niemand in de webwinkel betalen, de pagina toont een fout.", Language::Nl),
            ("Desde hoje de manhã ninguém consegue pagar na loja, a página mostra um erro.", Language::Pt),
            ("ORA-00600", Language::Other),
            ("", Language::Other),
        ] {
            assert_eq!(Language::of(text), expected, "{text}");
        }
    }
}
