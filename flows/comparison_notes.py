"""What the page of a comparison says of its figures and tables, as HTML."""

_INTERVALS = """\
<li><b>95 % bootstrap</b>: seeds and held-out cases are drawn at once, the same for both arms. With few
seeds it is too narrow: where two arms are alike, it leaves out 0 in about 24, 12 and 8 % of comparisons with
2, 4 and 8 seeds. <b>95 % over seeds</b> is Student's interval of the paired differences, which holds with any
number of seeds, for these held-out cases.</li>
<li><b>p (t)</b>: paired t-test over seeds; <b>p (ranks)</b>: Wilcoxon's signed ranks; both two-sided.</li>
"""

READING = f"""
<ul class=notes>
<li><b>Area under the curve</b>: of DSC over the currency of the curve, straight lines between rounds,
divided by the length of the axis, so that it reads as a mean DSC; in a contrast over the stretch that both
runs of a pair cover. <b>Final DSC</b> of a contrast: where that stretch ends, so after equal cost.</li>
<li><b>DSC</b>: mean over structures of the mean over held-out cases.</li>
{_INTERVALS}</ul>"""

DECLARED_CURVES = """
<p class=note>The two arms of the declared contrast, on its seeds. Bands: 95 % bootstrap over seeds and
held-out cases. They hold what both arms share, such as easy and hard held-out cases, so they may overlap
where the paired difference below is clear.</p>"""

CURVES = """
<p class=note>Means over seeds, round by round, start set included; the axis is what the annotations cost
once they were back. Minutes are those that annotators wrote down; where nobody did, as in a simulation, so
many a case, structure and slice as the configuration's <code>budget</code> says.</p>"""

DIFFERENCES = """
<p class=note>Same seeds, and the same resample of seeds and held-out cases, for both arms; 95 % bootstrap,
which is too narrow with few seeds, and cannot be drawn for one.</p>"""

ARMS = """
<p class=note>Areas are taken, seed by seed, over the stretch of the axis that all arms of the seed cover.
In brackets: 95 % bootstrap over seeds and held-out cases; after ±: standard deviation between seeds. Arms
with other numbers of seeds are compared pair by pair, in the contrasts, and not here.</p>"""

SAVINGS = """
<p class=note>When the best DSC so far (a monotone envelope) of the mean curve first reached the control's
final DSC, on a straight line between rounds, against when the control's own did; negative where the arm
took more. In brackets: 95 % bootstrap over seeds and held-out cases, with the share of draws in which the
arm got there at all; draws in which it did not are censored and count as the lowest.</p>"""

PAIRWISE = """
<p class=note>Share of the seeds in which the arm of the row has the larger area than the arm of the column
(a tie is half), mean difference of the areas, and number of pairs.</p>"""

TRIALS = """
<p class=note>What the estimator said of a mask against the DSC that annotation revealed, in every round;
means over rounds and seeds. The annotated masks are those that the arm chose, not a sample of the pool, so
these numbers do not rank the estimators. MAE and bias where the estimator predicts a DSC.</p>"""

OVERLAP = """
<p class=note>Of all cases that either arm chose in a seed, the share that both did (Jaccard), mean over
seeds.</p>"""

READS_REFERENCES = """
<p class=note>{arms}: <b>reads references</b> that only annotation could reveal. It shows what a perfect
estimate of quality gives, which may be less than random, and is no strategy.</p>"""

GROUP = """
<p class=note>{number} held-out cases; exploratory, p-values are not corrected.</p>"""

FEW_PAIRS = """
<p class=warning>With fewer than {needed} pairs (here {pairs}) a rank test cannot come below p = {least:.3g},
so it cannot be significant at 0.05, and the bootstrap is too narrow: read the intervals over seeds.</p>"""

DECLARED_LATE = """
<p class=warning>The declaration was first written down on {at}, when {begun} of the campaigns had
begun.</p>"""

DECLARED_OTHERWISE = """
<p class=warning>This is not what was declared on {at}: {changes}.</p>"""

FELL_BACK = """
<p class=warning>{arm}: {fell} of {all} selections were made by {by}, because the estimator's order had shown
nothing to do with DSC. They count under the arm's name.</p>"""

GAINS = """
<p class=note>p-values here are not corrected for their number.</p>"""

STUDENTS = f"""
<ul class=notes>
<li><b>labelled only</b> is the teacher: the labelled cases alone, for as many steps as a student. It is the
same model in all arms of a seed.</li>
<li><b>DSC</b>, <b>NSD</b>: means over structures of the means over held-out cases, of the last generation.
Nobody annotated anything in between.</li>
{_INTERVALS}</ul>"""

STUDENT_ARMS = """
<p class=note>In brackets: 95 % bootstrap over seeds and held-out cases; after ±: standard deviation between
seeds. Arms with other seeds are compared pair by pair, in the contrasts, and not here. Last column: mean gain
over labelled only, in multiples of the control's on the same seeds; a dash where the control's own gain is
not above 0 with 95 % confidence over seeds.</p>"""

STUDENT_STRUCTURES = """
<p class=note>Means over the seeds of each arm; arms with other seeds are not comparable here.</p>"""

FILTERS = """
<p class=note>Masks with voxels, against the references that the experiment has; no training saw these. Good:
above the DSC that the configuration names. Arms that keep as many masks may teach from more or fewer
images: a filter that finds both structures of a case good keeps fewer cases.</p>"""
