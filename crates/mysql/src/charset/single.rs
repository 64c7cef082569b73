//! Character sets of one byte, as the servers convert them: every table is what MySQL 9.7 and MariaDB 10.11 both answer
//! to `CONVERT(… USING utf8mb4)`, less the codes that do not come back as themselves.

/// A code without a character.
pub(super) const HOLE: u16 = 0xfffd;

/// The characters of all 256 codes: ASCII, then those of `high`, from 80h on.
const fn table(high: &str) -> [u16; 256] {
    let mut out = [HOLE; 256];
    let mut code = 0;
    while code < 128 {
        out[code] = code as u16;
        code += 1;
    }
    let bytes = high.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let first = bytes[at] as u16;
        let size;
        (out[code], size) = match first {
            0..0x80 => (first, 1),
            0x80..0xe0 => ((first & 0x1f) << 6 | low6(bytes, at + 1), 2),
            // No set of one byte has a character beyond the BMP.
            _ => ((first & 0x0f) << 12 | low6(bytes, at + 1) << 6 | low6(bytes, at + 2), 3),
        };
        at += size;
        code += 1;
    }
    assert!(code == 256);
    out
}

const fn low6(bytes: &[u8], at: usize) -> u16 {
    (bytes[at] & 0x3f) as u16
}

/// C1 controls, which ISO 8859 and its kin have at 80h to 9Fh.
macro_rules! c1 {
    ($high:literal) => {
        concat!(
            "\u{80}\u{81}\u{82}\u{83}\u{84}\u{85}\u{86}\u{87}\u{88}\u{89}\u{8a}\u{8b}\u{8c}\u{8d}\u{8e}\u{8f}\
             \u{90}\u{91}\u{92}\u{93}\u{94}\u{95}\u{96}\u{97}\u{98}\u{99}\u{9a}\u{9b}\u{9c}\u{9d}\u{9e}\u{9f}",
            $high
        )
    };
}

pub(super) static ARMSCII8: [u16; 256] = table(c1!(
    "\u{a0}❁§։\u{fffd}\u{fffd}»«\u{2014}\u{fffd}՝\u{fffd}\u{fffd}՟\u{2026}՜՛՞ԱաԲբԳգԴդԵեԶզԷէԸըԹթԺժԻիԼլԽխԾծ\
     ԿկՀհՁձՂղՃճՄմՅյՆնՇշՈոՉչՊպՋջՌռՍսՎվՏտՐրՑցՒւՓփՔքՕօՖֆ\u{2019}\u{fffd}"
));

pub(super) static CP1250: [u16; 256] = table(
    "€\u{fffd}\u{201a}\u{fffd}\u{201e}\u{2026}\u{2020}\u{2021}\u{fffd}\u{2030}Š\u{2039}ŚŤŽŹ\u{fffd}\
     \u{2018}\u{2019}\u{201c}\u{201d}\u{2022}\u{2013}\u{2014}\u{fffd}™š\u{203a}śťžź\u{a0}ˇ˘Ł¤Ą¦§¨©Ş«¬\
     \u{ad}®Ż°±˛ł´µ¶·¸ąş»Ľ˝ľżŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙",
);

pub(super) static CP1251: [u16; 256] = table(
    "ЂЃ\u{201a}ѓ\u{201e}\u{2026}\u{2020}\u{2021}€\u{2030}Љ\u{2039}ЊЌЋЏђ\u{2018}\u{2019}\u{201c}\u{201d}\
     \u{2022}\u{2013}\u{2014}\u{fffd}™љ\u{203a}њќћџ\u{a0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{ad}®Ї°±Ііґµ¶·ё№є»јЅѕїАБВГДЕЖЗИЙКЛ\
     МНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя",
);

pub(super) static CP1256: [u16; 256] = table(
    "€پ\u{201a}ƒ\u{201e}\u{2026}\u{2020}\u{2021}ˆ\u{2030}\u{fffd}\u{2039}Œچژ\u{fffd}گ\u{2018}\u{2019}\
     \u{201c}\u{201d}\u{2022}\u{2013}\u{2014}\u{fffd}™\u{fffd}\u{203a}œ\u{200c}\u{200d}\u{fffd}\u{a0}\
     \u{60c}¢£¤¥¦§¨©\u{fffd}«¬\u{ad}®¯°±²³´µ¶·¸¹\u{61b}»¼½¾\u{61f}\u{fffd}ءآأؤإئابةتثجحخدذرزسشصض×طظعغـفقك\
     àلâمنهوçèéêëىيîïًٌٍَôُِ÷ّùْûü\u{200e}\u{200f}\u{fffd}",
);

pub(super) static CP1257: [u16; 256] = table(
    "€\u{fffd}\u{201a}\u{fffd}\u{201e}\u{2026}\u{2020}\u{2021}\u{fffd}\u{2030}\u{fffd}\u{2039}\u{fffd}¨ˇ¸\
     \u{fffd}\u{2018}\u{2019}\u{201c}\u{201d}\u{2022}\u{2013}\u{2014}\u{fffd}™\u{fffd}\u{203a}\u{fffd}¯˛\
     \u{fffd}\u{a0}\u{fffd}¢£¤\u{fffd}¦§Ø©Ŗ«¬\u{ad}®Æ°±²³´µ¶·ø¹ŗ»¼½¾æĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽßąįāć\
     äåęēčéźėģķīļšńņóōõö÷ųłśūüżž˙",
);

pub(super) static CP850: [u16; 256] = table(
    "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐└┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈıÍÎÏ┘┌█▄¦Ì▀ÓßÔÒ\
     õÕµþÞÚÛÙýÝ¯´\u{ad}±\u{2017}¾¶§÷¸°¨·¹³²■\u{a0}",
);

pub(super) static CP852: [u16; 256] = table(
    "ÇüéâäůćçłëŐőîŹÄĆÉĹĺôöĽľŚśÖÜŤťŁ×čáíóúĄąŽžĘę¬źČş«»░▒▓│┤ÁÂĚŞ╣║╗╝Żż┐└┴┬├─┼Ăă╚╔╩╦╠═╬¤đĐĎËďŇÍÎě┘┌█▄ŢŮ▀ÓßÔŃ\
     ńňŠšŔÚŕŰýÝţ´\u{ad}˝˛ˇ˘§÷¸°¨˙űŘř■\u{a0}",
);

pub(super) static CP866: [u16; 256] = table(
    "АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмноп░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀рсту\
     фхцчшщъыьэюяЁёЄєЇїЎў°∙·√ⁿ²■\u{a0}",
);

pub(super) static DEC8: [u16; 256] = table(c1!(
    "\u{a0}¡¢£\u{fffd}¥\u{fffd}§¤©ª«\u{fffd}\u{fffd}\u{fffd}\u{fffd}°±²³\u{fffd}µ¶·\u{fffd}¹º»¼½\u{fffd}¿\
     ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏ\u{fffd}ÑÒÓÔÕÖŒØÙÚÛÜŸ\u{fffd}ßàáâãäåæçèéêëìíîï\u{fffd}ñòóôõöœøùúûüÿ\u{fffd}\u{fffd}"
));

pub(super) static GEOSTD8: [u16; 256] = table(
    "€\u{fffd}\u{201a}\u{fffd}\u{201e}\u{2026}\u{2020}\u{2021}\u{fffd}\u{2030}\u{fffd}\u{2039}\u{fffd}\
     \u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{2018}\u{2019}\u{201c}\u{201d}\u{2022}\u{2013}\u{2014}\u{fffd}\
     \u{fffd}\u{fffd}\u{203a}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿აბ\
     გდევზჱთიკლმნჲოპჟრსტჳუფქღყშჩცძწჭხჴჯჰჵ\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\
     \u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\
     \u{fffd}\u{fffd}\u{fffd}№\u{fffd}\u{fffd}",
);

pub(super) static GREEK: [u16; 256] = table(c1!(
    "\u{a0}ʽʼ£\u{fffd}\u{fffd}¦§¨©\u{fffd}«¬\u{ad}\u{fffd}\u{2015}°±²³΄΅Ά·ΈΉΊ»Ό½ΎΏΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡ\
     \u{fffd}ΣΤΥΦΧΨΩΪΫάέήίΰαβγδεζηθικλμνξοπρςστυφχψωϊϋόύώ\u{fffd}"
));

pub(super) static HEBREW: [u16; 256] = table(c1!(
    "\u{a0}\u{fffd}¢£¤¥¦§¨©×«¬\u{ad}®\u{203e}°±²³´µ¶·¸¹÷»¼½¾\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\
     \u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\
     \u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\
     \u{fffd}\u{fffd}\u{fffd}\u{2017}אבגדהוזחטיךכלםמןנסעףפץצקרשת\u{fffd}\u{fffd}\u{200e}\u{200f}\u{fffd}"
));

pub(super) static HP8: [u16; 256] = table(c1!(
    "\u{a0}ÀÂÈÊËÎÏ´ˋˆ¨˜ÙÛ₤¯Ýý°ÇçÑñ¡¿¤£¥§ƒ¢âêôûáéóúàèòùäëöüÅîØÆåíøæÄìÖÜÉïßÔÁÃãÐðÍÌÓÒÕõŠšÚŸÿÞþ·µ¶¾\u{2014}¼\
     ½ªº«■»±\u{fffd}"
));

pub(super) static KEYBCS2: [u16; 256] = table(
    "ČüéďäĎŤčěĚĹÍľĺÄÁÉžŽôöÓůÚýÖÜŠĽÝŘťáíóúňŇŮÔšřŕŔ¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπ\
     ΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}",
);

pub(super) static KOI8R: [u16; 256] = table(
    "─│┌┐└┘├┤┬┴┼▀▄█▌▐░▒▓⌠■∙√≈≤≥\u{a0}⌡°²·÷═║╒ё╓╔╕╖╗╘╙╚╛╜╝╞╟╠╡Ё╢╣╤╥╦╧╨╩╪╫╬©юабцдефгхийклмнопярстужвьызшэщч\
     ъЮАБЦДЕФГХИЙКЛМНОПЯРСТУЖВЬЫЗШЭЩЧЪ",
);

pub(super) static KOI8U: [u16; 256] = table(
    "─│┌┐└┘├┤┬┴┼▀▄█▌▐░▒▓⌠■\u{2022}√≈≤≥\u{a0}⌡°²·÷═║╒ёє╔ії╗╘╙╚╛ґ╝╞╟╠╡ЁЄ╣ІЇ╦╧╨╩╪Ґ╬©юабцдефгхийклмнопярстужв\
     ьызшэщчъЮАБЦДЕФГХИЙКЛМНОПЯРСТУЖВЬЫЗШЭЩЧЪ",
);

pub(super) static LATIN1: [u16; 256] = table(
    "€\u{81}\u{201a}ƒ\u{201e}\u{2026}\u{2020}\u{2021}ˆ\u{2030}Š\u{2039}Œ\u{8d}Ž\u{8f}\u{90}\u{2018}\
     \u{2019}\u{201c}\u{201d}\u{2022}\u{2013}\u{2014}˜™š\u{203a}œ\u{9d}žŸ\u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ\
     ¶·¸¹º»¼½¾¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ",
);

pub(super) static LATIN2: [u16; 256] = table(c1!(
    "\u{a0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{ad}ŽŻ°ą˛ł´ľśˇ¸šşťź˝žżŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řů\
     úűüýţ˙"
));

pub(super) static LATIN5: [u16; 256] = table(c1!(
    "\u{a0}¡¢£¤¥¦§¨©ª«¬\u{ad}®¯°±²³´µ¶·¸¹º»¼½¾¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏĞÑÒÓÔÕÖ×ØÙÚÛÜİŞßàáâãäåæçèéêëìíîïğñòóôõö÷øù\
     úûüışÿ"
));

pub(super) static LATIN7: [u16; 256] = table(c1!(
    "\u{a0}\u{201d}¢£¤\u{201e}¦§Ø©Ŗ«¬\u{ad}®Æ°±²³\u{201c}µ¶·ø¹ŗ»¼½¾æĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽßąįāćä\
     åęēčéźėģķīļšńņóōõö÷ųłśūüżž\u{2019}"
));

pub(super) static MACCE: [u16; 256] = table(
    "ÄĀāÉĄÖÜáąČäčĆćéŹźĎíďĒēĖóėôöõúĚěü\u{2020}°Ę£§\u{2022}¶ß®©™ę¨≠ģĮįĪ≤≥īĶ∂∑łĻļĽľĹĺŅņŃ¬√ńŇ∆«»\u{2026}\
     \u{a0}ňŐÕőŌ\u{2013}\u{2014}\u{201c}\u{201d}\u{2018}\u{2019}÷◊ōŔŕŘ\u{2039}\u{203a}řŖŗŠ\u{201a}\
     \u{201e}šŚśÁŤťÍŽžŪÓÔūŮÚůŰűŲųÝýķŻŁżĢˇ",
);

pub(super) static MACROMAN: [u16; 256] = table(
    "ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü\u{2020}°¢£§\u{2022}¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø¿¡¬√ƒ≈∆«»\u{2026}\
     \u{a0}ÀÃÕŒœ\u{2013}\u{2014}\u{201c}\u{201d}\u{2018}\u{2019}÷◊ÿŸ\u{2044}€\u{2039}\u{203a}ﬁﬂ\u{2021}·\
     \u{201a}\u{201e}\u{2030}ÂÊÁËÈÍÎÏÌÓÔ\u{f8ff}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ",
);

pub(super) static TIS620: [u16; 256] =
    table(c1!("\u{fffd}กขฃคฅฆงจฉชซฌญฎฏฐฑฒณดตถทธนบปผฝพฟภมยรฤลฦวศษสหฬอฮฯะัาำิีึืฺุู\u{fffd}\u{fffd}\u{fffd}\u{fffd}\
     \u{e3f}เแโใไๅๆ\u{e47}\u{e48}\u{e49}\u{e4a}\u{e4b}\u{e4c}ํ\u{e4e}๏๐๑๒๓๔๕๖๗๘๙๚๛\u{fffd}\u{fffd}\
     \u{fffd}\u{fffd}"));

/// ASCII with letters in the place of eleven signs, and nothing above.
pub(super) static SWE7: [u16; 256] = {
    let mut out = [HOLE; 256];
    let mut code = 0;
    while code < 128 {
        out[code] = code as u16;
        code += 1;
    }
    let letters = [
        (0x40, 'É'),
        (0x5b, 'Ä'),
        (0x5c, 'Ö'),
        (0x5d, 'Å'),
        (0x5e, 'Ü'),
        (0x60, 'é'),
        (0x7b, 'ä'),
        (0x7c, 'ö'),
        (0x7d, 'å'),
        (0x7e, 'ü'),
        (0x7f, '\u{fffd}'),
    ];
    let mut at = 0;
    while at < letters.len() {
        out[letters[at].0] = letters[at].1 as u16;
        at += 1;
    }
    out
};
