#include "cli/region_texts.h"

namespace renga::cli {

std::vector<NamedText> ShippedTexts() {
  return {
      {"cooking.en", R"(How do I make a simple vegetable soup for four people?
Chop two onions, three carrots and a stick of celery. Warm a spoonful of oil in a heavy pot and let the
vegetables soften for ten minutes without taking colour. Add a litre of water, a bay leaf and a little
salt, and simmer until the carrots are tender. Taste it. If it seems flat, add a few drops of lemon juice
before you reach for more salt. Serve it hot with bread, and keep what is left in the fridge for three
days. Soup is often better on the second evening.)"},
      {"cooking.ja", R"(四人分の簡単な野菜スープの作り方を教えてください。
玉ねぎ二個、にんじん三本、セロリ一本を小さく切ります。厚手の鍋に油を温め、色がつかないように十分ほど炒めます。
水を一リットルと塩を少し加え、にんじんが柔らかくなるまで弱火で煮てください。味が足りないと思ったら、塩を増やす前に
レモンの汁を少し入れてみましょう。残ったスープは冷蔵庫で三日ほど持ちます。二日目のほうがおいしいこともよくあります。)"},
      {"travel.en", R"(We have three days in a city by the sea. What should we see?
On the first morning walk along the harbour before the tour boats arrive; the fish market closes at ten.
Take the tram up to the old fort for the view, and come back down through the narrow streets on foot. Keep
the second day for the museum and a long lunch. On the third day a local train follows the coast for an
hour to a village with a quiet beach. Buy the ticket on board, carry small coins, and check when the last
train returns, because there is no bus at night.)"},
      {"travel.ja", R"(海辺の町に三日間滞在します。どこを見ればよいでしょうか。
一日目の朝は、観光船が来る前に港を散歩してください。魚市場は十時に閉まります。それから路面電車で丘の上の城跡へ行き、
帰りは細い坂道を歩いて下りると、町の暮らしがよく見えます。二日目は美術館とゆっくりした昼食にあてましょう。三日目は
海沿いを走る普通列車で一時間、静かな浜のある村まで足を延ばします。夜はバスがないので、帰りの時刻を必ず確かめてください。)"},
      {"health.en", R"(I sleep badly and feel tired in the afternoon. What can I try?
Begin with the simple things. Get up at the same time every day, also at the weekend, and go outside in the
morning light for twenty minutes. Drink your last coffee before two o'clock. Keep the bedroom cool and dark,
and leave the telephone in another room. If you lie awake for long, get up, read something dull, and return
when you are sleepy. When the tiredness lasts for more than a few weeks, or you snore and wake up with a
headache, see a doctor; there may be a cause that can be treated.)"},
      {"health.ja", R"(よく眠れず、午後になると疲れを感じます。何を試せばよいでしょうか。
まず簡単なことから始めましょう。休みの日も同じ時刻に起き、朝の光の中を二十分ほど歩いてください。コーヒーは午後二時までに
します。寝室は涼しく暗くして、電話は別の部屋に置きましょう。長く眠れないときは一度起きて、退屈な本を読み、眠くなったら
戻ります。疲れが何週間も続く場合や、いびきや朝の頭痛がある場合は、治療できる原因があるかもしれないので、医師に相談して
ください。)"},
      {"programming.en",
       R"(Write a function that counts the words of a text in Python and explain it.
def count_words(text):
    counts = {}
    for word in text.lower().split():
        word = word.strip(".,;:!?")
        if word:
            counts[word] = counts.get(word, 0) + 1
    return counts
The loop splits the text at white space, removes punctuation from both ends and adds one to the word's entry.
A dictionary finds the entry in constant time, so the function needs time proportional to the length of the
text. For a large file read it line by line instead of loading everything into memory at once.)"},
      {"programming.ja", R"(文章の中の単語を数える関数をPythonで書いて、説明してください。
def count_words(text):
    counts = {}
    for word in text.lower().split():
        counts[word] = counts.get(word, 0) + 1
    return counts
この関数は文章を空白で区切り、単語ごとに辞書の値を一つ増やします。辞書は平均して一定の時間で値を見つけるので、全体の
時間は文章の長さに比例します。大きなファイルの場合は、すべてをメモリに読み込まず、一行ずつ処理してください。例外が
起きたときは、どの行で失敗したかを表示すると原因を調べやすくなります。)"},
      {"history.en", R"(Why did people begin to live in towns?
When farming gave more grain than a family could eat, some hands were free for other work. Potters, smiths and
weavers settled where roads or rivers met, because customers passed there. Stores of food had to be counted and
guarded, so scribes and soldiers came, and with them kings and taxes. Walls kept out raiders and wild animals.
A town was also a risk: sickness spread quickly in narrow streets, and a bad harvest was felt at once. Yet
people came, for markets, for company, and because a town offered a life that the village did not.)"},
      {"history.ja", R"(人々はなぜ町に住むようになったのでしょうか。
農業によって家族が食べるより多くの穀物がとれるようになると、ほかの仕事をする人が現れました。陶工や鍛冶屋や織り手は、
客の通る道や川の交わる所に住みつきました。蓄えた食料を数え、守る必要があったので、書記や兵士が生まれ、王と税も生まれ
ました。城壁は敵や獣を防ぎましたが、狭い通りでは病気がすぐに広がり、不作の年には町がまず苦しみました。それでも人々は
市場と仲間と、村にはない暮らしを求めて集まったのです。)"},
      {"garden.en", R"(My tomato plants have yellow leaves. What is wrong?
Look at which leaves turn yellow first. If it is the lowest ones, the plant probably lacks nitrogen or simply
sheds old leaves that get no light. Yellow between green veins points to a lack of magnesium. Leaves that droop
and yellow together are a sign of too much water: push a finger into the soil, and wait until the top three
centimetres are dry. Water in the morning at the root, not on the leaf, and cover the ground with straw. Remove
spotted leaves at once and do not put them on the compost.)"},
      {"garden.ja", R"(トマトの葉が黄色くなりました。何が悪いのでしょうか。
どの葉から黄色くなるかを見てください。一番下の葉からなら、窒素が足りないか、光の当たらない古い葉が落ちるだけかもしれ
ません。葉脈が緑のままでその間が黄色いときは、マグネシウム不足が疑われます。葉がしおれて黄色くなるのは水のやりすぎの
しるしです。指を土に入れて、表面から三センチが乾くまで待ちましょう。水は朝、葉ではなく根元にやり、土をわらで覆います。
斑点のある葉はすぐに取り除いてください。)"},
      {"money.en", R"(How much should I save each month, and where?
First keep three months of expenses in an account that you can reach at any time. Then look at debts: a credit
card at eighteen percent costs more than any investment is likely to earn, so pay it back before you invest.
After that a tenth of your income is a good habit, moved automatically on the day your salary arrives. Spread
long-term savings over many companies and countries through a fund with low fees, and leave it alone when the
market falls. Money that you need within five years does not belong in shares.)"},
      {"money.ja", R"(毎月いくら、どこに貯金すればよいでしょうか。
まず三か月分の生活費を、いつでも引き出せる口座に置いてください。次に借金を見ます。利率十八パーセントのカードは、どんな
投資の利益よりも高くつくので、先に返しましょう。そのあとは収入の一割を、給料日に自動で移すのがよい習慣です。長期の
貯蓄は、手数料の安い投資信託で多くの会社や国に分散し、市場が下がっても動かさないことです。五年以内に使うお金は株式に
入れないでください。)"},
      {"music.en", R"(I am forty and want to learn the piano. Is it too late?
It is not. Adults learn more slowly with their fingers and faster with their heads. Practise fifteen minutes every
day rather than two hours on Sunday. Begin with pieces for both hands at half the speed, and count aloud. Learn
the chords of a song you love; three or four are enough for hundreds of songs. Record yourself once a month, for
progress is easier to hear than to feel. A teacher, even every second week, saves you from habits that are hard to
lose. And play for somebody, however short the piece.)"},
      {"music.ja", R"(四十歳からピアノを習いたいのですが、遅すぎるでしょうか。
遅くありません。大人は指の覚えは遅くても、頭の理解は早いものです。日曜日に二時間練習するより、毎日十五分続けてください。
両手の曲を半分の速さで始め、声に出して拍を数えます。好きな歌の和音を三つか四つ覚えれば、何百もの歌が弾けます。月に
一度録音すると、進歩がよくわかります。二週間に一度でも先生に習えば、直しにくい癖がつきません。短い曲でもよいので、
誰かの前で弾いてみましょう。)"},
      {"sports.en", R"(How should a beginner train for a run of ten kilometres?
Run three times a week and rest in between. In the first weeks change between two minutes of running and one
minute of walking, so slowly that you can still talk. Lengthen one run each week by no more than a tenth. Good
shoes matter more than a good watch. After a month add some short hills for strength. Pain in a muscle passes in a
day or two; pain in a joint is a reason to stop. In the last week run less, sleep well, and start the race slower
than you want to.)"},
      {"sports.ja", R"(初心者が十キロ走るには、どのように練習すればよいでしょうか。
週に三回走り、間の日は休みます。初めの数週間は、二分走って一分歩くことを、話ができるくらいゆっくり繰り返してください。
一回に走る距離は、週に一割以上増やさないようにします。よい時計よりよい靴のほうが大切です。一か月たったら短い坂道を
加えて脚を強くしましょう。筋肉の痛みは一日か二日で消えますが、関節が痛むときは休むべきです。最後の週は軽くして、当日は
思うより遅く走り始めてください。)"},
      {"science.en", R"(Why is the sky blue and the sunset red?
Sunlight holds all colours. The molecules of the air are much smaller than a wave of light, and they scatter short
waves far more than long ones: the strength falls with the fourth power of the wavelength. So blue light reaches
us from every part of the sky, while the other colours come straight through. In the evening the light crosses a
much longer path of air. Most of the blue has been scattered away on the way, and what is left is orange and red.
Dust and smoke deepen the effect, which is why sunsets after a great volcano were so vivid.)"},
      {"science.ja", R"(空はなぜ青く、夕焼けはなぜ赤いのでしょうか。
太陽の光にはすべての色が含まれています。空気の分子は光の波長よりずっと小さく、短い波を長い波よりはるかに強く散乱します。
その強さは波長の四乗に反比例します。そのため青い光は空のあらゆる方向から届き、ほかの色はまっすぐ進みます。夕方には光が
空気の中をずっと長く通り、青い光は途中で失われ、橙や赤が残ります。ちりや煙が多いと、この効果はさらに強くなります。)"},
      {"office.en", R"(Please write a polite message that moves a meeting to next week.
Subject: Meeting on Thursday
Dear Ms Keller,
thank you for the agenda. Unfortunately two of our engineers are ill, and without them we could not answer your
questions about the second item. Would Tuesday or Wednesday of next week suit you instead, at the same time? The
room is free on both days. I will send the figures by Friday in any case, so that you can look at them in advance.
I apologise for the short notice and hope that this does not upset your plans.
Kind regards)"},
      {"office.ja", R"(会議を来週に延期する丁寧なメールを書いてください。
件名：木曜日の会議について
田中様
いつもお世話になっております。先日は議題をお送りいただき、ありがとうございました。申し訳ございませんが、担当の技術者
二名が体調を崩しており、二番目の議題について十分なお答えができない見込みです。つきましては、来週の火曜日または水曜日の
同じ時刻に変更していただけますでしょうか。資料は金曜日までにお送りいたします。急なお願いで恐縮ですが、どうぞよろしく
お願い申し上げます。)"},
      {"story.en", R"(Tell me a short story about a lighthouse.
The keeper had not spoken to anyone since the supply boat left in autumn. Every evening she climbed the stairs,
cleaned the glass and lit the lamp. One night a heron came in through the broken window and stood beside the
light, as if it had been hired. She read aloud to it from the almanac. In the morning the bird was gone, but on the
rocks below lay a small boat, and in it a boy, cold and alive, who said that he had followed the voice, because the
fog had swallowed the light.)"},
      {"story.ja", R"(灯台についての短い物語を聞かせてください。
灯台守の女は、秋に船が去ってから誰とも話していなかった。毎晩階段を上り、硝子を磨き、灯をともした。ある夜、割れた窓から
一羽の鷺が入ってきて、まるで雇われたかのように灯のそばに立った。女は鳥に暦を読んで聞かせた。朝になると鳥は消えていたが、
下の岩場に小さな舟があり、その中に冷えきった少年が生きていた。霧が光を飲みこんでしまったので、声をたよりに来たのだと
少年は言った。)"},
  };
}

}  // namespace renga::cli
